package store

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"pando.dev/pando/partition"
)

// formatVersion is Pebble's file format. It only goes up, and a copy needs a
// program that knows it.
const formatVersion = pebble.FormatValueSeparation

// Keys that start with metaPrefix are the store's own: no Writer takes one and
// no Reader yields one.
const metaPrefix = 0x00

// metaVersion is the first byte of each value under metaPrefix.
const metaVersion = 1

// appliedKey holds the applied index. It is written in the same batch as the
// state it describes, so that what survives a crash is a prefix of the log and
// says which one. It is a function because package state must not change.
func appliedKey() []byte { return []byte{metaPrefix, 'a'} }

func appliedValue(i partition.Index) []byte {
	return binary.LittleEndian.AppendUint64([]byte{metaVersion}, uint64(i))
}

func parseApplied(v []byte) (partition.Index, error) {
	if len(v) > 0 && v[0] > metaVersion {
		return 0, partition.Errorf(partition.CodeNewerFormat, "applied index in version %d, this program knows %d", v[0], metaVersion)
	}
	if len(v) != 9 || v[0] != metaVersion {
		return 0, partition.Errorf(partition.CodeCorrupt, "applied index is %x", v)
	}
	return partition.Index(binary.LittleEndian.Uint64(v[1:])), nil
}

// newIter is r.NewIter, which never returns an error: what fails is the error of
// the iterator.
func newIter(r pebble.Reader, o *pebble.IterOptions) *pebble.Iterator {
	it, _ := r.NewIter(o)
	return it
}

// durableIndex reads the applied index of what is in files, 0 if there is none.
func durableIndex(db *pebble.DB) (partition.Index, error) {
	it := newIter(db, &pebble.IterOptions{
		LowerBound:                appliedKey(),
		UpperBound:                append(appliedKey(), 0),
		OnlyReadGuaranteedDurable: true,
	})
	defer func() { _ = it.Close() }()
	if !it.First() {
		return 0, it.Error()
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return 0, fmt.Errorf("read the durable index: %w", err)
	}
	return parseApplied(v)
}
