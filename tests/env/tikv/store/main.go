// Command tikvd is a store that speaks TiKV's gRPC protocol, for tests. It registers with a real Placement Driver, keeps
// its data in a directory over a kill, and can be made to misbehave. The transactions are those of TiDB's unistore; where
// unistore would answer otherwise than TiKV does, tikvd corrects it: see locklog.go, order.go, maxts.go and empty.go. There is no
// raft: each key is kept once. Where TiKV has a flag for something, it has that name here.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pingcap/log"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/config"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/lockstore"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/pd"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/mvcc"
)

// lockArenaBytes is how much one block of unistore's lock memory holds.
const lockArenaBytes = 8 << 20

type settings struct {
	pdEndpoints []string
	addrs       []string // where to listen
	advertised  []string // what PD tells clients instead; as many as addrs
	dir         string
	admin       string
	shard       shard
	syncWrites  bool
	election    time.Duration
	logLevel    string
}

func main() {
	s, err := parse()
	if err == nil {
		err = run(s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tikvd:", err)
		os.Exit(1)
	}
}

func parse() (settings, error) {
	var (
		pds       = flag.String("pd", "127.0.0.1:2379", "PD endpoints, comma separated")
		addrs     = flag.String("addr", "127.0.0.1:20160", "store addresses; several are peers over one engine")
		advertise = flag.String("advertise-addr", "", "addresses that clients are told instead, one for each of -addr")
		dir       = flag.String("data-dir", "tikv-data", "data directory")
		admin     = flag.String("status-addr", "", "address for status, topology and faults; not for strangers")
		part      = flag.String("shard", "0/1", "which part of the key space is here: i/n")
		splits    = flag.String("split", "", "the n-1 keys between the parts in hexadecimal, comma separated")
		sync      = flag.Bool("sync", false, "fsync each write: what is acknowledged survives a power cut, not only a kill")
		election  = flag.Duration("election", time.Second, "how long a stopped address's regions have no leader")
		level     = flag.String("log-level", "warn", "log level")
	)
	flag.Parse()
	s := settings{
		pdEndpoints: strings.Split(*pds, ","), addrs: strings.Split(*addrs, ","), dir: *dir, admin: *admin,
		syncWrites: *sync, election: *election, logLevel: *level,
	}
	s.advertised = s.addrs
	if *advertise != "" {
		s.advertised = strings.Split(*advertise, ",")
	}
	if len(s.advertised) != len(s.addrs) {
		return s, fmt.Errorf("%d addresses and %d advertised ones", len(s.addrs), len(s.advertised))
	}
	var err error
	s.shard, err = parseShard(*part, *splits)
	return s, err
}

func run(s settings) error {
	logger, properties, err := log.InitLogger(&log.Config{Level: s.logLevel})
	if err != nil {
		return err
	}
	log.ReplaceGlobals(logger, properties)
	if err := os.MkdirAll(filepath.Join(s.dir, "kv"), 0o700); err != nil {
		return err
	}
	pdClient, err := pd.NewClient(s.pdEndpoints, "tikvd")
	if err != nil {
		return fmt.Errorf("connecting to PD: %w", err)
	}
	now, err := freshTS(pdClient)
	if err != nil {
		return fmt.Errorf("asking PD for a timestamp: %w", err)
	}
	safePoint := &tikv.SafePoint{}
	db, err := openEngine(filepath.Join(s.dir, "kv"), safePoint, s.syncWrites)
	if err != nil {
		return fmt.Errorf("opening the engine: %w", err)
	}
	bundle := &mvcc.DBBundle{DB: db, LockStore: lockstore.NewMemStore(lockArenaBytes), StateTS: now}
	locks, err := openLockLog(filepath.Join(s.dir, "locks.log"), s.syncWrites)
	if err != nil {
		return fmt.Errorf("opening the lock log: %w", err)
	}
	kept, dropped := locks.restore(bundle)
	top, err := openTopology(pdClient, filepath.Join(s.dir, "topology.json"), s.advertised, s.shard)
	if err != nil {
		return err
	}

	conf := config.DefaultConf
	conf.Engine.DBPath = s.dir
	inner := tikv.NewStandAlongInnerServer(bundle)
	writer := &durableWriter{tikv.NewDBWriter(bundle), locks}
	clock := &commitClock{Client: pdClient}
	store := tikv.NewMVCCStore(&conf, bundle, s.dir, safePoint, writer, clock)
	store.DeadlockDetectSvr.ChangeRole(tikv.Leader)
	store.StartDeadlockDetection(false)

	calls, running := newCalls(), newInflight()
	endpoints := make([]*endpoint, len(s.addrs))
	for i, addr := range s.addrs {
		here := view{top, i}
		endpoints[i] = &endpoint{addr: addr, server: tikv.NewServer(here, store, inner), here: here, db: db, calls: calls,
			running: running, clock: clock}
		if err := endpoints[i].start(); err != nil {
			return err
		}
	}
	if s.admin != "" {
		if err := serveAdmin(s.admin, &admin{top, endpoints, calls, s.election}); err != nil {
			return err
		}
	}
	fmt.Printf("tikvd: serving %s, %d locks kept, %d dropped\n", strings.Join(s.addrs, " "), kept, dropped)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	for _, e := range endpoints {
		e.stop()
	}
	endpoints[0].server.Stop()
	return nil
}
