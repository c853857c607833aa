package main

import "sync"

// latchTable serialises commands that touch the same keys, known here by their hashes.
type latchTable struct {
	shards [latchShards]latchShard
}

// latchShards is a power of two: the top bits of a hash choose the shard.
const (
	latchShards     = 64
	latchShardShift = 64 - 6
)

type latchShard struct {
	mu   sync.Mutex
	free *sync.Cond
	held map[uint64]struct{}
}

func newLatchTable() *latchTable {
	t := &latchTable{}
	for i := range t.shards {
		s := &t.shards[i]
		s.free = sync.NewCond(&s.mu)
		s.held = make(map[uint64]struct{})
	}
	return t
}

// acquire takes every hash. Callers pass them sorted, so that no two wait for each other.
func (t *latchTable) acquire(hashes []uint64) {
	for _, h := range hashes {
		s := &t.shards[h>>latchShardShift]
		s.mu.Lock()
		for {
			if _, taken := s.held[h]; !taken {
				break
			}
			s.free.Wait()
		}
		s.held[h] = struct{}{}
		s.mu.Unlock()
	}
}

func (t *latchTable) release(hashes []uint64) {
	for _, h := range hashes {
		s := &t.shards[h>>latchShardShift]
		s.mu.Lock()
		delete(s.held, h)
		s.mu.Unlock()
		s.free.Broadcast()
	}
}
