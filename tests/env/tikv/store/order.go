package main

import (
	"context"
	"sync"

	"github.com/pingcap/badger"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/grpc"
)

// inflight holds the one-phase and async-commit prewrites that have not returned. Such a prewrite picks its commit
// timestamp before its lock can be seen, so a read that came in meanwhile with a later timestamp must wait for it. TiKV
// does this with its in-memory lock table; unistore does not, and loses updates.
type inflight struct {
	mu   sync.Mutex
	keys map[string][]chan struct{}
}

func newInflight() *inflight {
	return &inflight{keys: make(map[string][]chan struct{})}
}

func (f *inflight) enter(mutations []*kvrpcpb.Mutation) (leave func()) {
	done := make(chan struct{})
	f.mu.Lock()
	for _, m := range mutations {
		f.keys[string(m.Key)] = append(f.keys[string(m.Key)], done)
	}
	f.mu.Unlock()
	return func() {
		f.mu.Lock()
		for _, m := range mutations {
			f.forget(string(m.Key), done)
		}
		f.mu.Unlock()
		close(done)
	}
}

// forget takes one prewrite from a key's list; f.mu is held.
func (f *inflight) forget(key string, done chan struct{}) {
	rest := f.keys[key][:0]
	for _, other := range f.keys[key] {
		if other != done {
			rest = append(rest, other)
		}
	}
	if len(rest) == 0 {
		delete(f.keys, key)
	} else {
		f.keys[key] = rest
	}
}

func (f *inflight) waitForKeys(ctx context.Context, keys ...[]byte) error {
	var pending []chan struct{}
	f.mu.Lock()
	for _, key := range keys {
		pending = append(pending, f.keys[string(key)]...)
	}
	f.mu.Unlock()
	return waitForAll(ctx, pending)
}

// waitForRange waits for what is written from low on, below high; an empty high is the end of the key space.
func (f *inflight) waitForRange(ctx context.Context, low, high string) error {
	var pending []chan struct{}
	f.mu.Lock()
	for key, prewrites := range f.keys {
		if key >= low && (high == "" || key < high) {
			pending = append(pending, prewrites...)
		}
	}
	f.mu.Unlock()
	return waitForAll(ctx, pending)
}

func waitForAll(ctx context.Context, pending []chan struct{}) error {
	for _, done := range pending {
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// ordered makes reads wait for the prewrites that they may have to see, computes commit timestamps as TiKV does, and settles
// repeated prewrites. A read raises seen before it looks for prewrites, and a prewrite is to be found before it asks what was
// seen: one of the two notices the other.
func ordered(db *badger.DB, running *inflight, seen *maxTS, clock *commitClock) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		var err error
		seen.see(req)
		switch r := req.(type) {
		case *kvrpcpb.PrewriteRequest:
			if !r.UseAsyncCommit && !r.TryOnePc {
				break
			}
			defer running.enter(r.Mutations)()
			var resp any
			clock.during(func() uint64 { return seen.commitTS(r) }, func() { resp, err = next(ctx, req) })
			settle(db, r, resp)
			return resp, err
		case *kvrpcpb.GetRequest:
			err = running.waitForKeys(ctx, r.Key)
		case *kvrpcpb.BatchGetRequest:
			err = running.waitForKeys(ctx, r.Keys...)
		case *kvrpcpb.ScanRequest:
			low, high := string(r.StartKey), string(r.EndKey)
			if r.Reverse {
				low, high = high, low
			}
			err = running.waitForRange(ctx, low, high)
		}
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// settle answers a repeated one-phase or async-commit prewrite as TiKV does: a client that lost the first answer learns
// that its transaction committed. unistore would say that it conflicts with itself.
func settle(db *badger.DB, r *kvrpcpb.PrewriteRequest, resp any) {
	p, ok := resp.(*kvrpcpb.PrewriteResponse)
	if !ok || p == nil || len(p.Errors) == 0 {
		return
	}
	// A mutation that only checks its key leaves nothing to find; another of the same transaction does.
	for _, m := range r.Mutations {
		ts := commitTS(db, m.Key, r.StartVersion)
		if ts == 0 {
			continue
		}
		p.Errors = nil
		if r.TryOnePc {
			p.OnePcCommitTs = ts
		} else {
			p.MinCommitTs = ts
		}
		return
	}
}
