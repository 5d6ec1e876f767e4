package client

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"

	"pando.dev/pando/partition"
)

// MaxTokenGroups bounds the partitions that a token's text may name.
const MaxTokenGroups = 1024

// Token says how far its holder has seen: of each partition that answered it, up
// to which record. A read of level Session that gets the token shows nothing
// older. It is a value that never changes, and its text (String, ParseToken) may
// be handed to other processes. The zero value has seen nothing.
//
// A token is of one cluster. Partitions that are gone are no matter: a table
// that is dropped takes its partitions' ids along, and a part that was split off
// begins with everything its parent had.
type Token struct{ marks []mark } // ordered by group, each once

// mark is a group and a record of it.
type mark struct {
	group partition.GroupID
	index partition.Index
}

// Index returns the record of a group that is seen, 0 if none is.
func (t Token) Index(g partition.GroupID) partition.Index {
	if i, ok := t.find(g); ok {
		return t.marks[i].index
	}
	return 0
}

func (t Token) find(g partition.GroupID) (int, bool) {
	return slices.BinarySearchFunc(t.marks, g, func(m mark, g partition.GroupID) int {
		if m.group < g {
			return -1
		}
		return int(min(m.group-g, 1))
	})
}

// Len is how many partitions the token names.
func (t Token) Len() int { return len(t.marks) }

// IsZero reports whether the token has seen nothing.
func (t Token) IsZero() bool { return len(t.marks) == 0 }

// Join returns a token that has seen what both have.
func (t Token) Join(u Token) Token {
	seen := make(map[partition.GroupID]partition.Index, len(t.marks)+len(u.marks))
	for _, m := range slices.Concat(t.marks, u.marks) {
		seen[m.group] = max(seen[m.group], m.index)
	}
	return tokenOf(seen)
}

func tokenOf(seen map[partition.GroupID]partition.Index) Token {
	var t Token
	for _, g := range slices.Sorted(maps.Keys(seen)) {
		t.marks = append(t.marks, mark{g, seen[g]})
	}
	return t
}

// Token returns what the answer shows.
func (r Result) Token() Token {
	if r.Group == 0 || r.Index == 0 {
		return Token{}
	}
	return Token{marks: []mark{{r.Group, r.Index}}}
}

// A token's text is base64 in the URL alphabet, without padding, of
//
//	version u8=1 | count | per group, ascending: group, as the difference to the
//	one before | index | lineage | CRC32C of all that, u32 little-endian
//
// with varints where no size is given. The lineage says by which of a group's
// histories the index counts; there is one so far, 0. A token with another one
// is of a newer program and refused, like a newer version.
const (
	tokenVersion  = 1
	tokenSumBytes = 4
	maxTokenText  = 4 + MaxTokenGroups*(2*binary.MaxVarintLen64+1)*4/3
)

// String returns the token as text, "" if it has seen nothing. Check says
// whether ParseToken will take it.
func (t Token) String() string {
	if t.IsZero() {
		return ""
	}
	b := binary.AppendUvarint([]byte{tokenVersion}, uint64(len(t.marks)))
	last := partition.GroupID(0)
	for _, m := range t.marks {
		b = binary.AppendUvarint(b, uint64(m.group-last))
		b = binary.AppendUvarint(b, uint64(m.index))
		b = binary.AppendUvarint(b, 0)
		last = m.group
	}
	b = binary.LittleEndian.AppendUint32(b, partition.Checksum(b))
	return base64.RawURLEncoding.EncodeToString(b)
}

// Check refuses a token whose text would be over the limit.
func (t Token) Check() error {
	if len(t.marks) > MaxTokenGroups {
		return &partition.Error{
			Code: partition.CodeTooLarge, Why: fmt.Sprintf("a token of %d partitions, limit %d", len(t.marks), MaxTokenGroups),
			Next: "keep a token per table, or per part of one",
		}
	}
	return nil
}

// ParseToken reads a token's text. Text that String did not make is refused.
func ParseToken(s string) (Token, error) {
	if s == "" {
		return Token{}, nil
	}
	bad := func(format string, args ...any) (Token, error) {
		return Token{}, &partition.Error{
			Code: partition.CodeInvalid, Why: "the token " + fmt.Sprintf(format, args...),
			Next: "give it as an answer had it, whole",
		}
	}
	if len(s) > maxTokenText {
		return bad("has %d bytes, limit %d", len(s), maxTokenText)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	n := len(b) - tokenSumBytes
	switch {
	case err != nil || n < 1:
		return bad("is cut short or has other characters in it")
	case b[0] > tokenVersion:
		return Token{}, partition.Errorf(partition.CodeNewerFormat, "a token of version %d, newest known %d", b[0], tokenVersion)
	case b[0] != tokenVersion || partition.Checksum(b[:n]) != binary.LittleEndian.Uint32(b[n:]):
		return bad("has a wrong checksum")
	}
	d := routeDecoder{b: b[1:n]}
	t := d.token()
	if d.err != "" || len(d.b) > 0 {
		return bad("is malformed: %s", d.err)
	}
	return t, nil
}

func (d *routeDecoder) token() (t Token) {
	last := partition.GroupID(0)
	for range d.count(MaxTokenGroups, 3) {
		step, index, lineage := d.number(), d.number(), d.number()
		g := last + partition.GroupID(step)
		switch {
		case d.err != "":
			return t
		case g <= last || index == 0:
			d.fail("group %s at %d after %s", g, index, last)
			return t
		case lineage != 0:
			d.fail("history %d of group %s is not known to this program", lineage, g)
			return t
		}
		t.marks = append(t.marks, mark{g, partition.Index(index)})
		last = g
	}
	return t
}

// Seen remembers what its holder has seen: given to reads and writes (see
// ReadOptions), it makes each read of level Session show at least what was
// written and read before under the same Seen. The zero value has seen nothing.
// It may be used by any number of goroutines; it must not be copied.
//
// It grows by 16 bytes or so per partition that answered, and forgets none.
type Seen struct {
	mu sync.Mutex
	to map[partition.GroupID]partition.Index
}

// Add takes in what a token has seen, such as one of another process.
func (s *Seen) Add(t Token) {
	for _, m := range t.marks {
		s.note(m.group, m.index)
	}
}

// Token returns what was seen so far.
func (s *Seen) Token() Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	return tokenOf(s.to)
}

func (s *Seen) note(g partition.GroupID, i partition.Index) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.to == nil {
		s.to = map[partition.GroupID]partition.Index{}
	}
	s.to[g] = max(s.to[g], i)
}

func (s *Seen) index(g partition.GroupID) partition.Index {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to[g]
}
