package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/pd"
	"github.com/pingcap/tidb/pkg/util/codec"
)

const (
	storeVersion = "8.1.0" // what clients that ask for it are told
	// heartbeatInterval is far below TiKV's 10 s, since a PD that comes back knows no leader before it hears of one.
	heartbeatInterval = 500 * time.Millisecond
	// PD only wants to see that a disk is not full.
	capacityBytes  = 1 << 40
	availableBytes = 1 << 39
)

// shard says which part of the key space this process owns: part i of n, with n-1 keys between the parts.
type shard struct {
	i, n  int
	split [][]byte
}

func parseShard(part, splits string) (shard, error) {
	var s shard
	if _, err := fmt.Sscanf(part, "%d/%d", &s.i, &s.n); err != nil {
		return s, fmt.Errorf("shard %q is not i/n: %w", part, err)
	}
	if splits != "" {
		for _, text := range strings.Split(splits, ",") {
			key, err := hex.DecodeString(text)
			if err != nil {
				return s, fmt.Errorf("split key %q is not hexadecimal: %w", text, err)
			}
			s.split = append(s.split, key)
		}
	}
	if len(s.split) != s.n-1 || s.i < 0 || s.i >= s.n {
		return s, fmt.Errorf("shard %s needs %d split keys, not %d", part, s.n-1, len(s.split))
	}
	return s, nil
}

// peer is one store as PD knows it: one address of this process.
type peer struct {
	ID   uint64 `json:"id"`
	Addr string `json:"addr"`
	// stopped says that nobody listens: until the others have elected somebody its regions have no leader.
	stopped bool
	down    bool // the others have elected
	seen    *maxTS
}

// topology is this process's stores and regions. It keeps them over a restart, and tells PD about them.
type topology struct {
	pdClient pd.Client
	path     string
	started  int64
	latches  *latchTable

	mu      sync.RWMutex
	stores  []*peer
	regions map[uint64]*region
	changes uint64 // of leaders

	closing chan struct{}
	beating sync.WaitGroup
}

type savedTopology struct {
	Stores  []*peer          `json:"stores"`
	Regions []*metapb.Region `json:"regions"`
}

func openTopology(pdClient pd.Client, path string, addrs []string, part shard) (*topology, error) {
	t := &topology{pdClient: pdClient, path: path, started: time.Now().Unix(), latches: newLatchTable(),
		regions: make(map[uint64]*region), closing: make(chan struct{})}
	raw, err := os.ReadFile(path)
	switch {
	case err == nil:
		err = t.load(raw, addrs)
	case errors.Is(err, os.ErrNotExist):
		err = t.initialise(addrs, part)
	}
	if err != nil {
		return nil, err
	}
	for i := range t.stores {
		t.stores[i].seen = &maxTS{}
		if err := pdClient.PutStore(context.Background(), t.storeMeta(i)); err != nil {
			return nil, fmt.Errorf("registering store %d: %w", i, err)
		}
	}
	if err := t.save(); err != nil {
		return nil, err
	}
	for _, r := range t.regions {
		t.lead(r, r.leader)
	}
	t.syncMaxTS()
	t.report()
	t.beating.Add(1)
	go t.beat()
	return t, nil
}

func (t *topology) load(raw []byte, addrs []string) error {
	var saved savedTopology
	if err := json.Unmarshal(raw, &saved); err != nil {
		return fmt.Errorf("reading %s: %w", t.path, err)
	}
	if len(saved.Stores) != len(addrs) {
		return fmt.Errorf("the data is of %d stores, %d addresses are given", len(saved.Stores), len(addrs))
	}
	t.stores = saved.Stores
	for i, addr := range addrs {
		t.stores[i].Addr = addr
	}
	for _, meta := range saved.Regions {
		t.regions[meta.Id] = t.newRegion(meta, 0)
	}
	return nil
}

func (t *topology) save() error {
	t.mu.RLock()
	saved := savedTopology{Stores: t.stores}
	for _, r := range t.regions {
		saved.Regions = append(saved.Regions, r.meta)
	}
	raw, err := json.Marshal(saved)
	t.mu.RUnlock()
	if err != nil {
		return err
	}
	if err := os.WriteFile(t.path+".tmp", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(t.path+".tmp", t.path)
}

func (t *topology) storeMeta(i int) *metapb.Store {
	s := t.stores[i]
	return &metapb.Store{Id: s.ID, Address: s.Addr, Version: storeVersion, StartTimestamp: t.started}
}

func (t *topology) allocID() (uint64, error) { return t.pdClient.AllocID(context.Background()) }

// beat tells PD regularly that the stores live and who leads their regions.
func (t *topology) beat() {
	defer t.beating.Done()
	tick := time.NewTicker(heartbeatInterval)
	defer tick.Stop()
	for {
		for _, stats := range t.storeStats() {
			_ = t.pdClient.StoreHeartbeat(context.Background(), stats) // the next one says the same
		}
		t.syncMaxTS()
		t.report()
		select {
		case <-t.closing:
			return
		case <-tick.C:
		}
	}
}

func (t *topology) storeStats() []*pdpb.StoreStats {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var stats []*pdpb.StoreStats
	for _, s := range t.stores {
		if !s.stopped {
			stats = append(stats, &pdpb.StoreStats{StoreId: s.ID, Capacity: capacityBytes, Available: availableBytes,
				RegionCount: uint32(len(t.regions)), StartTime: uint32(t.started)})
		}
	}
	return stats
}

// report tells PD of every region that has a leader.
func (t *topology) report() {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, r := range t.regions {
		if t.stores[r.leader].stopped {
			continue
		}
		t.pdClient.ReportRegion(&pdpb.RegionHeartbeatRequest{
			Region: r.meta, Leader: r.meta.Peers[r.leader], ApproximateSize: 1, ApproximateKeys: 1})
	}
}

// setStopped says whether anybody listens for store i. One that listens again before the others have elected leads on.
func (t *topology) setStopped(i int, stopped bool) {
	t.mu.Lock()
	t.stores[i].stopped = stopped
	if !stopped {
		t.stores[i].down = false
	}
	t.mu.Unlock()
}

// elect ends the leadership of store i, if it is stopped still. Its regions' leaders move to the next store that is up.
func (t *topology) elect(i int) {
	t.mu.Lock()
	t.stores[i].down = t.stores[i].stopped
	for _, r := range t.regions {
		leader := r.leader
		for n := 0; n < len(t.stores) && t.stores[leader].down; n++ {
			leader = (leader + 1) % len(t.stores)
		}
		if leader != r.leader {
			t.lead(r, leader)
		}
	}
	t.mu.Unlock()
	t.syncMaxTS()
	t.report()
}

// transfer moves a region's leader to store i.
func (t *topology) transfer(id uint64, i int) error {
	t.mu.Lock()
	r := t.regions[id]
	if r == nil {
		t.mu.Unlock()
		return fmt.Errorf("there is no region %d", id)
	}
	t.lead(r, i)
	t.mu.Unlock()
	t.syncMaxTS()
	t.report()
	return nil
}

// lead makes store i the leader of r; t.mu is held. It knows nothing yet of what the leader before it has seen.
func (t *topology) lead(r *region, i int) {
	t.changes++
	r.leader, r.unsynced = i, t.changes
}

// syncMaxTS raises the max_ts of stores that have begun to lead. Where PD does not answer the next heartbeat tries again.
func (t *topology) syncMaxTS() {
	waiting := make(map[*region]uint64)
	t.mu.RLock()
	for _, r := range t.regions {
		if r.unsynced > 0 {
			waiting[r] = r.unsynced
		}
	}
	t.mu.RUnlock()
	if len(waiting) == 0 {
		return
	}
	ts, err := freshTS(t.pdClient)
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for r, change := range waiting {
		if r.unsynced == change {
			t.stores[r.leader].seen.raise(ts)
			r.unsynced = 0
		}
	}
}

// split cuts the region that holds key at it. The right part keeps the region's ID, as in TiKV.
func (t *topology) split(key []byte) (*metapb.Region, error) {
	ids := make([]uint64, len(t.stores)+1)
	for i := range ids {
		id, err := t.allocID()
		if err != nil {
			return nil, err
		}
		ids[i] = id
	}
	t.mu.Lock()
	var old *region
	for _, r := range t.regions {
		if bytes.Compare(r.start, key) < 0 && bytes.Compare(key, r.end) < 0 {
			old = r
		}
	}
	if old == nil {
		t.mu.Unlock()
		return nil, fmt.Errorf("no region to split at %q", key)
	}
	at := codec.EncodeBytes(nil, key)
	left := &metapb.Region{Id: ids[0], StartKey: old.meta.StartKey, EndKey: at, RegionEpoch: old.nextEpoch()}
	for i, s := range t.stores {
		left.Peers = append(left.Peers, &metapb.Peer{Id: ids[i+1], StoreId: s.ID})
	}
	right := &metapb.Region{Id: old.meta.Id, StartKey: at, EndKey: old.meta.EndKey, RegionEpoch: old.nextEpoch(),
		Peers: old.meta.Peers}
	for _, part := range []*metapb.Region{left, right} {
		r := t.newRegion(part, old.leader)
		t.regions[part.Id] = r
		t.lead(r, old.leader)
	}
	t.mu.Unlock()
	if err := t.save(); err != nil {
		return nil, err
	}
	t.report()
	return left, nil
}

type topologyStatus struct {
	Stores  []peer         `json:"stores"`
	Regions []regionStatus `json:"regions"`
}

type regionStatus struct {
	ID     uint64 `json:"id"`
	Start  string `json:"start"` // quoted as in Go: keys are binary
	End    string `json:"end"`
	Leader string `json:"leader"`
}

func (t *topology) status() topologyStatus {
	t.mu.RLock()
	defer t.mu.RUnlock()
	status := topologyStatus{Regions: []regionStatus{}}
	for _, s := range t.stores {
		status.Stores = append(status.Stores, *s)
	}
	for _, r := range t.regions {
		status.Regions = append(status.Regions, regionStatus{r.meta.Id, fmt.Sprintf("%q", r.start),
			fmt.Sprintf("%q", r.end), t.stores[r.leader].Addr})
	}
	sort.Slice(status.Regions, func(i, j int) bool { return status.Regions[i].Start < status.Regions[j].Start })
	return status
}
