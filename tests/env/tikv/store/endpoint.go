package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pingcap/badger"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	messageBytesMax = 64 << 20
	windowBytes     = 1 << 20
	// pingIntervalMin is below what any client is configured with; gRPC's own 5 min would close such connections.
	pingIntervalMin = time.Second
)

// endpoint is one store address. It can be taken down and brought back.
type endpoint struct {
	addr    string
	server  *tikv.Server
	db      *badger.DB
	calls   *calls
	running *inflight    // shared by all addresses, as the engine is
	clock   *commitClock // shared too
	here    view

	mu   sync.Mutex
	grpc *grpc.Server // nil while it is down
}

func (e *endpoint) start() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.grpc != nil {
		return nil
	}
	listener, err := net.Listen("tcp", e.addr)
	if err != nil {
		return err
	}
	e.grpc = grpc.NewServer(
		grpc.StatsHandler(e.calls),
		grpc.ChainUnaryInterceptor(e.calls.intercept, refuseRaw, e.here.refuseUnsynced,
			ordered(e.db, e.running, e.here.seen(), e.clock), keepEmpty),
		grpc.StreamInterceptor(refuseStream),
		grpc.KeepaliveEnforcementPolicy(
			keepalive.EnforcementPolicy{MinTime: pingIntervalMin, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(messageBytesMax), grpc.InitialWindowSize(windowBytes),
		grpc.InitialConnWindowSize(windowBytes))
	tikvpb.RegisterTikvServer(e.grpc, e.server)
	go func(server *grpc.Server) {
		if err := server.Serve(listener); err != nil {
			fmt.Fprintln(os.Stderr, "tikvd: serving", e.addr, "ended:", err)
		}
	}(e.grpc)
	return nil
}

func (e *endpoint) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.grpc != nil {
		e.grpc.Stop()
		e.grpc = nil
	}
}

// refuseRaw refuses the raw calls: unistore answers success to them and does nothing.
func refuseRaw(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if strings.HasPrefix(info.FullMethod, "/tikvpb.Tikv/Raw") {
		return nil, status.Error(codes.Unimplemented, "this store has no raw key-value calls")
	}
	return next(ctx, req)
}

// refuseStream refuses batched calls and the coprocessor: what comes in a stream goes past the interceptors.
func refuseStream(any, grpc.ServerStream, *grpc.StreamServerInfo, grpc.StreamHandler) error {
	return status.Error(codes.Unimplemented, "this store has no streams")
}
