package main

import (
	"context"
	"errors"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
	"github.com/pingcap/tidb/pkg/util/codec"
	"google.golang.org/grpc"
)

// keySpaceEnd is above every key: unistore keeps 0xff and what follows it for itself.
var keySpaceEnd = []byte{0xff}

// region is one key range. Every store of the process has a peer of it, and one leads.
type region struct {
	meta       *metapb.Region
	start, end []byte // as unistore wants them, where meta has them encoded
	diff       int64
	leader     int // index into topology.stores
	// unsynced is not 0 while the leader's max_ts need not be above all that the leader before it has seen: TiKV asks PD for
	// a fresh timestamp then. It tells one change from the next.
	unsynced uint64
	latches  *latchTable
}

func (r *region) Meta() *metapb.Region      { return r.meta }
func (r *region) Diff() *int64              { return &r.diff }
func (r *region) RawStart() []byte          { return r.start }
func (r *region) RawEnd() []byte            { return r.end }
func (r *region) AcquireLatches(h []uint64) { r.latches.acquire(h) }
func (r *region) ReleaseLatches(h []uint64) { r.latches.release(h) }

func (r *region) nextEpoch() *metapb.RegionEpoch {
	return &metapb.RegionEpoch{ConfVer: r.meta.RegionEpoch.ConfVer, Version: r.meta.RegionEpoch.Version + 1}
}

func (t *topology) newRegion(meta *metapb.Region, leader int) *region {
	r := &region{meta: meta, leader: leader, latches: t.latches, end: keySpaceEnd}
	if len(meta.StartKey) > 0 {
		_, r.start, _ = codec.DecodeBytes(meta.StartKey, nil) // we encoded it ourselves
	}
	if len(meta.EndKey) > 0 {
		_, r.end, _ = codec.DecodeBytes(meta.EndKey, nil)
	}
	return r
}

// view is the topology as store i answers for it: unistore asks it which region a request is for, and it refuses what a
// TiKV store would refuse, so that clients have to follow.
type view struct {
	*topology
	i int
}

var _ tikv.RegionManager = view{}

func (v view) refuseOtherStore(ctx *kvrpcpb.Context) *errorpb.Error {
	if p := ctx.GetPeer(); p != nil && p.GetStoreId() != v.stores[v.i].ID {
		mismatch := &errorpb.StoreNotMatch{RequestStoreId: p.GetStoreId(), ActualStoreId: v.stores[v.i].ID}
		return &errorpb.Error{Message: "store not match", StoreNotMatch: mismatch}
	}
	return nil
}

func (v view) GetRegionFromCtx(ctx *kvrpcpb.Context) (tikv.RegionCtx, *errorpb.Error) {
	if e := v.refuseOtherStore(ctx); e != nil {
		return nil, e
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	r := v.regions[ctx.GetRegionId()]
	if r == nil {
		absent := &errorpb.RegionNotFound{RegionId: ctx.GetRegionId()}
		return nil, &errorpb.Error{Message: "region not found", RegionNotFound: absent}
	}
	if r.leader != v.i && v.stores[r.leader].stopped {
		electing := &errorpb.NotLeader{RegionId: r.meta.Id}
		return nil, &errorpb.Error{Message: "not leader", NotLeader: electing}
	}
	if r.leader != v.i {
		elsewhere := &errorpb.NotLeader{RegionId: r.meta.Id, Leader: r.meta.Peers[r.leader]}
		return nil, &errorpb.Error{Message: "not leader", NotLeader: elsewhere}
	}
	have, want := r.meta.RegionEpoch, ctx.GetRegionEpoch()
	if have.ConfVer != want.GetConfVer() || have.Version != want.GetVersion() {
		e := &errorpb.EpochNotMatch{}
		for _, other := range v.regions {
			e.CurrentRegions = append(e.CurrentRegions, other.meta)
		}
		return nil, &errorpb.Error{Message: "epoch not match", EpochNotMatch: e}
	}
	return r, nil
}

// seen is the store's max_ts.
func (v view) seen() *maxTS { return v.stores[v.i].seen }

// refuseUnsynced refuses to choose a commit timestamp for a region whose leader is new, as TiKV does.
func (v view) refuseUnsynced(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	r, ok := req.(*kvrpcpb.PrewriteRequest)
	if ok && (r.TryOnePc || r.UseAsyncCommit) && !v.isSynced(r.Context.GetRegionId()) {
		e := &errorpb.Error{Message: "max ts not synced", MaxTimestampNotSynced: &errorpb.MaxTimestampNotSynced{}}
		return &kvrpcpb.PrewriteResponse{RegionError: e}, nil
	}
	return next(ctx, req)
}

func (v view) isSynced(id uint64) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	r := v.regions[id]
	return r == nil || r.unsynced == 0
}

func (v view) GetStoreInfoFromCtx(ctx *kvrpcpb.Context) (string, uint64, *errorpb.Error) {
	if e := v.refuseOtherStore(ctx); e != nil {
		return "", 0, e
	}
	return v.stores[v.i].Addr, v.stores[v.i].ID, nil
}

func (v view) GetStoreIDByAddr(addr string) (uint64, error) {
	for _, s := range v.stores {
		if s.Addr == addr {
			return s.ID, nil
		}
	}
	return 0, errors.New("no such store")
}

func (v view) GetStoreAddrByStoreID(id uint64) (string, error) {
	for _, s := range v.stores {
		if s.ID == id {
			return s.Addr, nil
		}
	}
	return "", errors.New("no such store")
}

func (v view) SplitRegion(req *kvrpcpb.SplitRegionRequest) *kvrpcpb.SplitRegionResponse {
	keys := req.SplitKeys
	if len(req.SplitKey) > 0 {
		keys = append(keys, req.SplitKey)
	}
	resp := &kvrpcpb.SplitRegionResponse{}
	for _, key := range keys {
		left, err := v.split(key)
		if err != nil {
			resp.RegionError = &errorpb.Error{Message: err.Error()}
			return resp
		}
		resp.Regions = append(resp.Regions, left)
	}
	return resp
}

func (v view) Close() error {
	close(v.closing)
	v.beating.Wait()
	return nil
}
