package kv

import (
	"encoding/binary"

	"pando.dev/pando/partition"
)

const (
	queryGet  = 1
	queryScan = 2
)

const (
	scanBack     = 1 << 0
	scanKeysOnly = 1 << 1
)

// Get is the query for one key.
func Get(key []byte) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	return appendBytes(start(queryGet, len(key)+2), key), nil
}

// GetAnswer is the answer to Get.
type GetAnswer struct {
	Found   bool
	Version Version
	Value   []byte
}

func encodeGet(v Version, value []byte) []byte {
	b := start(queryGet, len(value)+16)
	b = binary.AppendUvarint(b, uint64(v))
	return appendBytes(b, value)
}

// ParseGet decodes the answer to Get. The value aliases b.
func ParseGet(b []byte) (GetAnswer, error) {
	c := cursor{b: b}
	if k := c.kind(); c.err == nil && k != queryGet {
		c.fail("answer of kind %d to a get", k)
	}
	a := GetAnswer{Version: Version(c.number()), Value: c.bytes()}
	a.Found = a.Version > 0
	if c.err == nil && !a.Found && len(a.Value) > 0 {
		c.fail("an absent key has a value")
	}
	if err := c.end(); err != nil {
		return GetAnswer{}, err
	}
	return a, nil
}

// ScanQuery asks for pairs of a range in order.
type ScanQuery struct {
	Range partition.KeyRange
	// Back asks for descending order.
	Back bool
	// KeysOnly leaves the values out.
	KeysOnly bool
	// Limit bounds the pairs (default and most: MaxScanPairs).
	Limit int
	// Bytes bounds the answer (default and most: MaxScanBytes). One pair comes
	// whatever its size.
	Bytes int
}

// Encode returns the query, or says which limit it is over. Limit and Bytes
// over the most are cut to it.
func (q ScanQuery) Encode() ([]byte, error) {
	if q.Limit < 0 || q.Bytes < 0 {
		return nil, partition.Errorf(partition.CodeInvalid, "scan with limit %d and %d bytes", q.Limit, q.Bytes)
	}
	if err := checkBound(q.Range.Lo); err != nil {
		return nil, err
	}
	if err := checkBound(q.Range.Hi); err != nil {
		return nil, err
	}
	var flags byte
	if q.Back {
		flags |= scanBack
	}
	if q.KeysOnly {
		flags |= scanKeysOnly
	}
	b := append(start(queryScan, len(q.Range.Lo)+len(q.Range.Hi)+16), flags)
	b = appendBytes(appendBytes(b, q.Range.Lo), q.Range.Hi)
	b = binary.AppendUvarint(b, uint64(q.Limit))
	return binary.AppendUvarint(b, uint64(q.Bytes)), nil
}

// query is a decoded query.
type query struct {
	get  []byte // the key, or nil
	scan ScanQuery
}

func parseQuery(b []byte) (q query, err error) {
	c := cursor{b: b}
	switch k := c.kind(); {
	case c.err != nil:
	case k == queryGet:
		q.get = c.bytes()
		if c.err == nil {
			c.failWith(checkKey(q.get))
		}
	case k == queryScan:
		q.scan = c.scan()
	default:
		c.fail("query of kind %d", k)
	}
	return q, c.end()
}

func (c *cursor) scan() (q ScanQuery) {
	flags := c.byte()
	if flags&^(scanBack|scanKeysOnly) != 0 {
		c.fail("scan with flags %#x", flags)
	}
	q.Back, q.KeysOnly = flags&scanBack != 0, flags&scanKeysOnly != 0
	q.Range = partition.KeyRange{Lo: c.bytes(), Hi: c.bytes()}
	q.Limit, q.Bytes = orMost(c.number(), MaxScanPairs), orMost(c.number(), MaxScanBytes)
	if c.err == nil {
		c.failWith(checkBound(q.Range.Lo))
	}
	if c.err == nil {
		c.failWith(checkBound(q.Range.Hi))
	}
	return q
}

// orMost reads 0 and what is too large as the most.
func orMost(v uint64, most int) int {
	if v == 0 || v > uint64(most) {
		return most
	}
	return int(v)
}

// Pair is one pair of a ScanAnswer.
type Pair struct {
	Key     []byte
	Version Version
	Value   []byte // nil with KeysOnly
}

// ScanAnswer is the answer to a ScanQuery.
type ScanAnswer struct {
	Pairs []Pair
	// More says that the scan stopped at a limit, not at the end of the range:
	// ask again with ScanQuery.Rest.
	More bool
}

// Rest is the query for what comes after an answer with More set.
func (q ScanQuery) Rest(a ScanAnswer) ScanQuery {
	if len(a.Pairs) == 0 {
		return q
	}
	last := a.Pairs[len(a.Pairs)-1].Key
	if q.Back {
		q.Range.Hi = append([]byte(nil), last...)
	} else {
		q.Range.Lo = successor(last)
	}
	return q
}

// ParseScan decodes the answer to a ScanQuery. The pairs alias b.
func ParseScan(b []byte) (ScanAnswer, error) {
	var a ScanAnswer
	c := cursor{b: b}
	if k := c.kind(); c.err == nil && k != queryScan {
		c.fail("answer of kind %d to a scan", k)
	}
	more := c.byte()
	if c.err == nil && more > 1 {
		c.fail("scan answer with flags %#x", more)
	}
	a.More = more == 1
	n := c.count(4)
	if n > MaxScanPairs {
		c.fail("scan answer of %d pairs, limit %d", n, MaxScanPairs)
	}
	if c.err == nil && n > 0 {
		a.Pairs = make([]Pair, 0, n)
	}
	for i := 0; i < n && c.err == nil; i++ {
		a.Pairs = append(a.Pairs, Pair{Key: c.bytes(), Version: Version(c.number()), Value: c.bytes()})
	}
	if err := c.end(); err != nil {
		return ScanAnswer{}, err
	}
	return a, nil
}
