package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/tidb/pkg/util/codec"
)

const (
	bootstrapDeadline     = 30 * time.Second
	bootstrapPollInterval = 50 * time.Millisecond
)

// initialise makes this process's stores and its one region anew. The process with the first part of the key space
// bootstraps the cluster; the others wait for it, as PD takes one bootstrap only.
func (t *topology) initialise(addrs []string, part shard) error {
	for _, addr := range addrs {
		id, err := t.allocID()
		if err != nil {
			return err
		}
		t.stores = append(t.stores, &peer{ID: id, Addr: addr})
	}
	id, err := t.allocID()
	if err != nil {
		return err
	}
	meta := &metapb.Region{Id: id, RegionEpoch: &metapb.RegionEpoch{ConfVer: 1, Version: 1}}
	if err := t.addPeers(meta, 1); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), bootstrapDeadline)
	defer cancel()
	if part.i == 0 {
		if _, err := t.pdClient.Bootstrap(ctx, t.storeMeta(0), meta); err != nil {
			return fmt.Errorf("bootstrapping the cluster: %w", err)
		}
	}
	if err := t.waitForBootstrap(ctx); err != nil {
		return err
	}
	// The range and the other peers come as a later epoch, as a split and a change of membership would bring them.
	if err := t.addPeers(meta, len(addrs)); err != nil {
		return err
	}
	meta.RegionEpoch.Version = uint64(part.n)
	if part.i > 0 {
		meta.StartKey = codec.EncodeBytes(nil, part.split[part.i-1])
	}
	if part.i < part.n-1 {
		meta.EndKey = codec.EncodeBytes(nil, part.split[part.i])
	}
	t.regions[meta.Id] = t.newRegion(meta, 0)
	return nil
}

func (t *topology) waitForBootstrap(ctx context.Context) error {
	for {
		if ok, err := t.pdClient.IsBootstrapped(ctx); err == nil && ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("the cluster was not bootstrapped in time")
		case <-time.After(bootstrapPollInterval):
		}
	}
}

func (t *topology) addPeers(meta *metapb.Region, n int) error {
	for len(meta.Peers) < n {
		id, err := t.allocID()
		if err != nil {
			return err
		}
		if len(meta.Peers) > 0 {
			meta.RegionEpoch.ConfVer++
		}
		meta.Peers = append(meta.Peers, &metapb.Peer{Id: id, StoreId: t.stores[len(meta.Peers)].ID})
	}
	return nil
}
