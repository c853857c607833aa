package main

import (
	"context"
	"math"
	"sync"
	"sync/atomic"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/pd"
)

// maxTS is the highest timestamp that one store has seen a read at: TiKV calls it max_ts. A commit timestamp that the
// store computes itself is one more. It is kept by each store for itself, and a store that begins to lead a region raises
// it to a fresh timestamp from PD, as it does not know what the leader before it has seen.
type maxTS struct{ ts atomic.Uint64 }

func (m *maxTS) raise(ts uint64) {
	if ts == math.MaxUint64 { // a read of the latest version, whatever it is
		return
	}
	for old := m.ts.Load(); old < ts && !m.ts.CompareAndSwap(old, ts); old = m.ts.Load() {
	}
}

// see raises it by a request, as TiKV does: by what reads, and by what asks for a transaction's fate. A prewrite raises
// nothing.
func (m *maxTS) see(req any) {
	switch r := req.(type) {
	case *kvrpcpb.GetRequest:
		m.raise(r.Version)
	case *kvrpcpb.BatchGetRequest:
		m.raise(r.Version)
	case *kvrpcpb.ScanRequest:
		m.raise(r.Version)
	case *kvrpcpb.ScanLockRequest:
		m.raise(r.MaxVersion)
	case *kvrpcpb.CheckTxnStatusRequest:
		m.raise(r.LockTs)
		m.raise(r.CallerStartTs)
		m.raise(r.CurrentTs)
	case *kvrpcpb.CheckSecondaryLocksRequest:
		m.raise(r.StartVersion)
	case *kvrpcpb.PessimisticLockRequest:
		m.raise(r.ForUpdateTs)
	}
}

// commitTS is what TiKV commits a one-phase transaction at.
func (m *maxTS) commitTS(r *kvrpcpb.PrewriteRequest) uint64 {
	return max(max(m.ts.Load(), r.StartVersion, r.ForUpdateTs)+1, r.MinCommitTs)
}

// commitClock stands between unistore and PD. unistore asks PD for a fresh timestamp when it commits in one phase, which
// hides that TiKV does not: a fresh one is later than the start of everybody who began before, so that none of them misses
// a conflict. Here such a prewrite says itself what unistore is told.
type commitClock struct {
	pd.Client
	turn   sync.Mutex // one prewrite at a time: unistore's question does not say whose it is
	answer atomic.Pointer[func() uint64]
}

// during has unistore told what answer gives while do runs.
func (c *commitClock) during(answer func() uint64, do func()) {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.answer.Store(&answer)
	defer c.answer.Store(nil)
	do()
}

// GetTS answers unistore, which asks when it holds the latches of all keys.
func (c *commitClock) GetTS(ctx context.Context) (physical, logical int64, err error) {
	if answer := c.answer.Load(); answer != nil {
		ts := (*answer)()
		return int64(ts >> physicalShift), int64(ts & (1<<physicalShift - 1)), nil
	}
	return c.Client.GetTS(ctx)
}

// physicalShift is where the milliseconds begin in a timestamp.
const physicalShift = 18

// freshTS is a timestamp from PD as one number.
func freshTS(client pd.Client) (uint64, error) {
	physical, logical, err := client.GetTS(context.Background())
	return uint64(physical)<<physicalShift + uint64(logical), err
}
