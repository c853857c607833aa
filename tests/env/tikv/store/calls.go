package main

import (
	"context"
	"maps"
	"math/rand/v2"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// faults is how this store misbehaves. Shares are from 0 (never) to 1 (always).
type faults struct {
	delayShare float64
	delay      time.Duration
	dropShare  float64 // of the answers to writes
	refusing   *refusing
}

// counters is what the calls since the last reset came to.
type counters struct {
	Requests map[string]uint64 `json:"requests"` // by method, such as KvGet
	Delayed  uint64            `json:"delayed"`
	Dropped  uint64            `json:"dropped"`
	Refused  uint64            `json:"refused"`
}

// calls counts what clients ask for, and injects faults. One is shared by all addresses of the process.
type calls struct {
	mu          sync.Mutex
	faults      faults
	counters    counters
	connections atomic.Int64
}

func newCalls() *calls {
	return &calls{counters: counters{Requests: make(map[string]uint64)}}
}

func (c *calls) setDelay(share float64, delay time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults.delayShare, c.faults.delay = share, delay
}

func (c *calls) setDrop(share float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults.dropShare = share
}

func (c *calls) setRefusing(refusing *refusing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults.refusing = refusing
}

// reset ends all faults and begins to count anew.
func (c *calls) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = faults{}
	c.counters = counters{Requests: make(map[string]uint64)}
}

func (c *calls) count() counters {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.counters
	now.Requests = maps.Clone(now.Requests)
	return now
}

// arrive counts a call and decides what becomes of its answer.
func (c *calls) arrive(method string) (delay time.Duration, drop bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counters.Requests[method]++
	if rand.Float64() < c.faults.delayShare {
		delay = c.faults.delay
		c.counters.Delayed++
	}
	if isWrite(method) && rand.Float64() < c.faults.dropShare {
		drop = true
		c.counters.Dropped++
	}
	return delay, drop
}

// refuse decides whether a call gets another answer than its own, and whether it is executed all the same.
func (c *calls) refuse(req any) (resp any, err error, executed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	resp, err = c.faults.refusing.refuse(req)
	if resp == nil && err == nil {
		return nil, nil, true
	}
	c.counters.Refused++
	return resp, err, c.faults.refusing.executed
}

// isWrite says whether losing the answer leaves a client in doubt about what was written.
func isWrite(method string) bool {
	return method == "KvPrewrite" || method == "KvCommit"
}

// intercept injects the faults. What is delayed or dropped was executed; what is refused was not, unless a test wants it so.
func (c *calls) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	delay, drop := c.arrive(path.Base(info.FullMethod))
	resp, err, executed := c.refuse(req)
	if executed {
		own, failed := next(ctx, req)
		if resp == nil && err == nil {
			resp, err = own, failed
		}
	}
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if drop {
		return nil, status.Error(codes.Unavailable, "the answer was dropped, as a test asked for")
	}
	return resp, err
}

// The rest makes calls a stats.Handler, which is how gRPC tells of connections.

// TagConn and TagRPC have nothing to add.
func (c *calls) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *calls) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c *calls) HandleRPC(context.Context, stats.RPCStats)                         {}

// HandleConn counts the connections that are open.
func (c *calls) HandleConn(_ context.Context, event stats.ConnStats) {
	switch event.(type) {
	case *stats.ConnBegin:
		c.connections.Add(1)
	case *stats.ConnEnd:
		c.connections.Add(-1)
	}
}
