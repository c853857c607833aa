package main

import (
	"github.com/pingcap/badger"
	"github.com/pingcap/badger/options"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/mvcc"
)

// The sizes are far below the engine's defaults: a test starts several stores on a small machine.
const (
	valueThresholdBytes = 256 // larger values go to the value log
	valueLogBytes       = 64 << 20
	memTableBytes       = 16 << 20
	levels              = 7
)

// userMetaBytes is the length of a committed version's metadata; rollback marks carry something else.
const userMetaBytes = 16

func openEngine(dir string, safePoint *tikv.SafePoint, syncWrites bool) (*badger.DB, error) {
	o := badger.DefaultOptions
	o.Dir, o.ValueDir = dir, dir
	o.ManagedTxns = true
	o.SyncWrites = syncWrites
	o.ValueThreshold = valueThresholdBytes
	o.ValueLogFileSize = valueLogBytes
	o.ValueLogMaxNumFiles = 3
	o.MaxMemTableSize = memTableBytes
	o.NumCompactors = 1
	o.CompactionFilterFactory = safePoint.CreateCompactionFilter
	o.TableBuilderOptions.CompressionPerLevel = make([]options.CompressionType, levels)
	return badger.Open(o)
}

// commitTS is the timestamp at which the transaction that began at startTS committed a write of key, or 0.
func commitTS(db *badger.DB, key []byte, startTS uint64) (ts uint64) {
	_ = db.View(func(txn *badger.Txn) error {
		opts := badger.DefaultIteratorOptions
		opts.AllVersions = true
		it := txn.NewIterator(opts)
		defer it.Close()
		for it.Seek(key); it.Valid(); it.Next() {
			item := it.Item()
			if string(item.Key()) != string(key) {
				return nil
			}
			if m := item.UserMeta(); len(m) == userMetaBytes && mvcc.DBUserMeta(m).StartTS() == startTS {
				ts = mvcc.DBUserMeta(m).CommitTS()
				return nil
			}
		}
		return nil
	})
	return ts
}
