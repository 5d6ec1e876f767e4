package kv

import "pando.dev/pando/partition"

const (
	// MaxKeyBytes bounds a key. It has at least one byte.
	MaxKeyBytes = 1 << 10
	// MaxValueBytes bounds a value, which may be empty.
	MaxValueBytes = 1 << 20
	// MaxBatchOps bounds the conditions and writes of a batch, counted together.
	MaxBatchOps = 4096
	// envelopeBytes is left for what travels with a command in its record: the
	// session and the sequence number.
	envelopeBytes = 64
	// MaxCommandBytes bounds an encoded command.
	MaxCommandBytes = partition.MaxPayloadBytes - envelopeBytes
	// MaxScanPairs bounds the pairs of one answer, and is the default.
	MaxScanPairs = 10_000
	// MaxScanBytes bounds the bytes of one answer, and is the default. An
	// answer holds at least one pair, so one that is larger by itself comes
	// alone; with the largest key and value it still fits a record's payload.
	MaxScanBytes = 1 << 20
)

func tooLarge(what string, have, limit int, unit string) *partition.Error {
	return partition.Errorf(partition.CodeTooLarge, "%s of %d %s, limit %d", what, have, unit, limit)
}

func checkKey(key []byte) *partition.Error {
	if len(key) == 0 {
		return partition.Errorf(partition.CodeInvalid, "the empty key is not a key")
	}
	if len(key) > MaxKeyBytes {
		return tooLarge("key", len(key), MaxKeyBytes, "bytes")
	}
	return nil
}

// checkBound allows one byte more than a key, because the successor of a key,
// the key and a zero byte, is a bound.
func checkBound(bound []byte) *partition.Error {
	if len(bound) > MaxKeyBytes+1 {
		return tooLarge("bound of a range", len(bound), MaxKeyBytes+1, "bytes")
	}
	return nil
}

func checkValue(value []byte) *partition.Error {
	if len(value) > MaxValueBytes {
		return tooLarge("value", len(value), MaxValueBytes, "bytes")
	}
	return nil
}
