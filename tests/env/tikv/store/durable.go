package main

import (
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/mvcc"
)

// durableWriter logs every change of a lock around unistore's own writer: what is put before it is acknowledged, what is
// removed after its outcome is in the engine. A kill between the two leaves a lock too many, never one too few.
type durableWriter struct {
	mvcc.DBWriter
	log *lockLog
}

type durableBatch struct {
	mvcc.WriteBatch
	put, del []lockOp
}

func (w *durableWriter) NewWriteBatch(startTS, commitTS uint64, ctx *kvrpcpb.Context) mvcc.WriteBatch {
	return &durableBatch{WriteBatch: w.DBWriter.NewWriteBatch(startTS, commitTS, ctx)}
}

func (w *durableWriter) Write(b mvcc.WriteBatch) error {
	d := b.(*durableBatch)
	if err := w.log.append(d.put); err != nil {
		return err
	}
	if err := w.DBWriter.Write(d.WriteBatch); err != nil {
		return err
	}
	return w.log.append(d.del)
}

func (b *durableBatch) Prewrite(key []byte, lock *mvcc.Lock) {
	b.WriteBatch.Prewrite(key, lock)
	b.put = append(b.put, lockOp{key, lock.MarshalBinary()})
}

func (b *durableBatch) PessimisticLock(key []byte, lock *mvcc.Lock) {
	b.WriteBatch.PessimisticLock(key, lock)
	b.put = append(b.put, lockOp{key, lock.MarshalBinary()})
}

func (b *durableBatch) Commit(key []byte, lock *mvcc.Lock) {
	b.WriteBatch.Commit(key, lock)
	b.del = append(b.del, lockOp{key: key})
}

func (b *durableBatch) Rollback(key []byte, deleteLock bool) {
	b.WriteBatch.Rollback(key, deleteLock)
	if deleteLock {
		b.del = append(b.del, lockOp{key: key})
	}
}

func (b *durableBatch) PessimisticRollback(key []byte) {
	b.WriteBatch.PessimisticRollback(key)
	b.del = append(b.del, lockOp{key: key})
}
