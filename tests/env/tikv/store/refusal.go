package main

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// refusals are what TiKV answers when a region cannot serve a request at the moment, by the name that a test asks with.
var refusals = map[string]*errorpb.Error{
	"server_is_busy":    {Message: "server is busy", ServerIsBusy: &errorpb.ServerIsBusy{Reason: "a test asked for it"}},
	"stale_command":     {Message: "stale command", StaleCommand: &errorpb.StaleCommand{}},
	"data_is_not_ready": {Message: "data is not ready", DataIsNotReady: &errorpb.DataIsNotReady{}},
	"epoch_not_match":   {Message: "epoch not match", EpochNotMatch: &errorpb.EpochNotMatch{}},
	"not_leader":        {Message: "not leader", NotLeader: &errorpb.NotLeader{}},
	"memory_quota":      nil, // gRPC's own, see memoryQuota
}

// memoryQuota is how gRPC refuses what it has no memory for.
var memoryQuota = status.Error(codes.ResourceExhausted, "a test asked for it")

// refusing is which requests are refused, and how.
type refusing struct {
	share       float64
	kind        string
	executed    bool // does what was asked all the same: the client cannot tell
	secondaries bool // commits of all but the primary key, and nothing else

	mu        sync.Mutex
	committed map[uint64]bool // by their start: transactions whose primary key was committed
}

// refuse is the answer instead of a request's own, or none.
func (f *refusing) refuse(req any) (resp any, err error) {
	if f == nil || !f.concerns(req) || rand.Float64() >= f.share {
		return nil, nil
	}
	e := refusals[f.kind]
	if e == nil {
		return nil, memoryQuota
	}
	switch req.(type) {
	case *kvrpcpb.GetRequest:
		resp = &kvrpcpb.GetResponse{RegionError: e}
	case *kvrpcpb.BatchGetRequest:
		resp = &kvrpcpb.BatchGetResponse{RegionError: e}
	case *kvrpcpb.ScanRequest:
		resp = &kvrpcpb.ScanResponse{RegionError: e}
	case *kvrpcpb.PrewriteRequest:
		resp = &kvrpcpb.PrewriteResponse{RegionError: e}
	case *kvrpcpb.CommitRequest:
		resp = &kvrpcpb.CommitResponse{RegionError: e}
	case *kvrpcpb.BatchRollbackRequest:
		resp = &kvrpcpb.BatchRollbackResponse{RegionError: e}
	}
	return resp, nil
}

// concerns says whether a request is one of those that are to be refused. A transaction's first commit is its primary key's.
func (f *refusing) concerns(req any) bool {
	if !f.secondaries {
		return true
	}
	r, ok := req.(*kvrpcpb.CommitRequest)
	if !ok {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	follows := f.committed[r.StartVersion]
	f.committed[r.StartVersion] = true
	return follows
}

func newRefusing(kind string, share float64, executed, secondaries bool) (*refusing, error) {
	if _, known := refusals[kind]; !known {
		return nil, fmt.Errorf("there is no refusal %q", kind)
	}
	return &refusing{kind: kind, share: share, executed: executed, secondaries: secondaries,
		committed: make(map[uint64]bool)}, nil
}
