package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/mvcc"
)

// lockLogBytesMax is how long the log grows before it is written anew with the live locks alone.
const lockLogBytesMax = 32 << 20

// A record is the length and the CRC-32 of its body; an operation in it is a kind, the lengths of key and value, and both.
const (
	recordHeadBytes = 8
	opHeadBytes     = 9
	opRemove        = 0
	opPut           = 1
)

// lockLog keeps the locks on disk. unistore holds them in memory only, where TiKV replicates them: without this a killed
// store would forget prewrites that a client was told had succeeded.
type lockLog struct {
	mu   sync.Mutex
	path string
	file *os.File
	sync bool
	size int64
	live map[string][]byte
}

type lockOp struct {
	key []byte
	val []byte // nil removes the lock
}

func openLockLog(path string, syncWrites bool) (*lockLog, error) {
	l := &lockLog{path: path, sync: syncWrites, live: make(map[string][]byte)}
	if err := l.replay(); err != nil {
		return nil, err
	}
	if err := l.compact(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *lockLog) replay() error {
	f, err := os.Open(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	var head [recordHeadBytes]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil // a torn tail is an unacknowledged write
		}
		n := binary.LittleEndian.Uint32(head[:4])
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return nil
		}
		if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(head[4:]) {
			return nil
		}
		l.apply(body)
	}
}

// apply replays one record's body, which its checksum has shown to be whole.
func (l *lockLog) apply(body []byte) {
	for len(body) > 0 {
		kind := body[0]
		keyEnd := opHeadBytes + binary.LittleEndian.Uint32(body[1:])
		end := keyEnd + binary.LittleEndian.Uint32(body[5:])
		key := string(body[opHeadBytes:keyEnd])
		if kind == opPut {
			l.live[key] = append([]byte(nil), body[keyEnd:end]...)
		} else {
			delete(l.live, key)
		}
		body = body[end:]
	}
}

func encodeOps(ops []lockOp) []byte {
	buf := make([]byte, recordHeadBytes)
	for _, op := range ops {
		kind := byte(opRemove)
		if op.val != nil {
			kind = opPut
		}
		buf = append(buf, kind)
		buf = binary.LittleEndian.AppendUint32(buf, uint32(len(op.key)))
		buf = binary.LittleEndian.AppendUint32(buf, uint32(len(op.val)))
		buf = append(buf, op.key...)
		buf = append(buf, op.val...)
	}
	binary.LittleEndian.PutUint32(buf[:4], uint32(len(buf)-recordHeadBytes))
	binary.LittleEndian.PutUint32(buf[4:8], crc32.ChecksumIEEE(buf[recordHeadBytes:]))
	return buf
}

func (l *lockLog) append(ops []lockOp) error {
	if len(ops) == 0 {
		return nil
	}
	rec := encodeOps(ops)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, op := range ops {
		if op.val != nil {
			l.live[string(op.key)] = op.val
		} else {
			delete(l.live, string(op.key))
		}
	}
	if _, err := l.file.Write(rec); err != nil {
		return err
	}
	if l.sync {
		if err := l.file.Sync(); err != nil {
			return err
		}
	}
	if l.size += int64(len(rec)); l.size > lockLogBytesMax {
		return l.compactLocked()
	}
	return nil
}

func (l *lockLog) compact() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.compactLocked()
}

func (l *lockLog) compactLocked() error {
	tmp, err := os.OpenFile(l.path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	ops := make([]lockOp, 0, len(l.live))
	for k, v := range l.live {
		ops = append(ops, lockOp{key: []byte(k), val: v})
	}
	l.size = 0
	if len(ops) > 0 {
		rec := encodeOps(ops)
		if _, err := tmp.Write(rec); err != nil {
			return err
		}
		l.size = int64(len(rec))
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := os.Rename(l.path+".tmp", l.path); err != nil {
		return err
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file = tmp
	return nil
}

// restore fills unistore's memory of locks. A lock whose commit record reached the engine before the kill is left out.
func (l *lockLog) restore(b *mvcc.DBBundle) (kept, dropped int) {
	for k, v := range l.live {
		if commitTS(b.DB, []byte(k), mvcc.DecodeLock(v).StartTS) > 0 {
			delete(l.live, k)
			dropped++
			continue
		}
		b.LockStore.Put([]byte(k), v)
		kept++
	}
	return kept, dropped
}
