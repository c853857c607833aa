package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// admin is what a test may ask of the store from outside the protocol.
type admin struct {
	top       *topology
	endpoints []*endpoint
	calls     *calls
	election  time.Duration
}

// serveAdmin answers on addr:
//
//	GET  /status                    stores, regions, counters, open connections
//	POST /stop?store=0              takes an address down; its leaders move when the election is over,
//	                                which &election=20s makes longer
//	POST /start?store=0             brings it back
//	POST /leader?region=7&store=1   moves a region's leader
//	POST /split?key=k5              cuts the region that holds the key
//	POST /delay?share=0.05&ms=200   delays a share of all answers
//	POST /drop?share=0.1            drops a share of the answers to writes, which are executed
//	POST /refuse?kind=stale_command&share=0.3    refuses a share of the reads and writes as TiKV does (refusal.go);
//	                                with &executed=true it does what it was asked all the same, with
//	                                &secondaries=true it refuses only to commit secondary keys
//	POST /reset                     ends all of these, and begins to count anew
func serveAdmin(addr string, a *admin) error {
	mux := http.NewServeMux()
	handle := func(pattern string, answer func(url.Values) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, err := answer(r.URL.Query())
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(body) // whoever hung up needs no answer
		})
	}
	handle("GET /status", a.status)
	handle("POST /stop", a.stop)
	handle("POST /start", a.start)
	handle("POST /leader", a.leader)
	handle("POST /split", a.split)
	handle("POST /delay", a.delay)
	handle("POST /drop", a.drop)
	handle("POST /refuse", a.refuse)
	handle("POST /reset", a.reset)
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(listener, mux) }()
	return nil
}

func (a *admin) status(url.Values) (any, error) {
	return struct {
		topologyStatus
		counters
		Connections int64 `json:"connections"`
	}{a.top.status(), a.calls.count(), a.calls.connections.Load()}, nil
}

func (a *admin) stop(query url.Values) (any, error) {
	i, err := a.store(query)
	if err != nil {
		return nil, err
	}
	election := a.election
	if query.Has("election") {
		if election, err = time.ParseDuration(query.Get("election")); err != nil {
			return nil, err
		}
	}
	a.top.setStopped(i, true)
	a.endpoints[i].stop()
	time.AfterFunc(election, func() { a.top.elect(i) })
	return "stopped", nil
}

func (a *admin) start(query url.Values) (any, error) {
	i, err := a.store(query)
	if err != nil {
		return nil, err
	}
	if err := a.endpoints[i].start(); err != nil {
		return nil, err
	}
	a.top.setStopped(i, false)
	return "started", nil
}

func (a *admin) leader(query url.Values) (any, error) {
	i, err := a.store(query)
	if err != nil {
		return nil, err
	}
	id, err := strconv.ParseUint(query.Get("region"), 10, 64)
	if err != nil {
		return nil, err
	}
	return "moved", a.top.transfer(id, i)
}

func (a *admin) split(query url.Values) (any, error) {
	return a.top.split([]byte(query.Get("key")))
}

func (a *admin) delay(query url.Values) (any, error) {
	share, err := share(query)
	if err != nil {
		return nil, err
	}
	ms, err := strconv.ParseUint(query.Get("ms"), 10, 32)
	if err != nil {
		return nil, err
	}
	a.calls.setDelay(share, time.Duration(ms)*time.Millisecond)
	return "delaying", nil
}

func (a *admin) drop(query url.Values) (any, error) {
	share, err := share(query)
	if err != nil {
		return nil, err
	}
	a.calls.setDrop(share)
	return "dropping", nil
}

func (a *admin) refuse(query url.Values) (any, error) {
	share, err := share(query)
	if err != nil {
		return nil, err
	}
	refusing, err := newRefusing(query.Get("kind"), share, query.Has("executed"), query.Has("secondaries"))
	if err != nil {
		return nil, err
	}
	a.calls.setRefusing(refusing)
	return "refusing", nil
}

func (a *admin) reset(url.Values) (any, error) {
	a.calls.reset()
	return "reset", nil
}

// store is the index of the address that a request names.
func (a *admin) store(query url.Values) (int, error) {
	i, err := strconv.Atoi(query.Get("store"))
	if err == nil && (i < 0 || i >= len(a.endpoints)) {
		err = fmt.Errorf("there is no store %d", i)
	}
	return i, err
}

func share(query url.Values) (float64, error) {
	share, err := strconv.ParseFloat(query.Get("share"), 64)
	if err == nil && !(share >= 0 && share <= 1) {
		err = fmt.Errorf("a share is from 0 to 1, not %g", share)
	}
	return share, err
}
