package kv

import (
	"bytes"
	"encoding/binary"

	"pando.dev/pando/partition"
)

// Version counts a key's writes: the index of the record that wrote its value.
// Versions of a partition only grow, also over a delete and a new put, so a
// version never comes back. Zero means that the key is absent.
type Version uint64

// commandBatch is the only kind of command: everything is a batch.
const commandBatch = 1

// conditionKind says what a Condition asks.
type conditionKind byte

const (
	ifAbsent  conditionKind = 1
	ifPresent conditionKind = 2
	ifValue   conditionKind = 3
	ifVersion conditionKind = 4
)

// Condition is what must hold of a key for a command to be executed.
type Condition struct {
	kind    conditionKind
	key     []byte
	value   []byte
	version Version
}

// IfAbsent holds if the key is not there.
func IfAbsent(key []byte) Condition { return Condition{kind: ifAbsent, key: key} }

// IfPresent holds if the key is there.
func IfPresent(key []byte) Condition { return Condition{kind: ifPresent, key: key} }

// IfValue holds if the key is there with exactly this value.
func IfValue(key, value []byte) Condition { return Condition{kind: ifValue, key: key, value: value} }

// IfVersion holds if the key's version is v; 0 is IfAbsent.
func IfVersion(key []byte, v Version) Condition {
	return Condition{kind: ifVersion, key: key, version: v}
}

// writeKind says what a write does.
type writeKind byte

const (
	writePut         writeKind = 1
	writeDelete      writeKind = 2
	writeDeleteRange writeKind = 3
)

// write is one write of a batch. Of a range, key and value are the bounds.
type write struct {
	kind       writeKind
	key, value []byte
}

// Batch is a set of conditions and writes that one partition executes as a
// whole: if every condition holds before the first write, all writes are made,
// in order; otherwise none. The zero Batch is empty. It keeps the slices that
// it is given until Encode.
type Batch struct {
	conditions []Condition
	writes     []write
}

// If adds a condition.
func (b *Batch) If(c Condition) { b.conditions = append(b.conditions, c) }

// Put adds a write of a key.
func (b *Batch) Put(key, value []byte) {
	b.writes = append(b.writes, write{kind: writePut, key: key, value: value})
}

// Delete adds the removal of a key, which need not be there.
func (b *Batch) Delete(key []byte) { b.writes = append(b.writes, write{kind: writeDelete, key: key}) }

// DeleteRange adds the removal of every key of a range. It costs the same for
// one key as for a million.
func (b *Batch) DeleteRange(r partition.KeyRange) {
	b.writes = append(b.writes, write{kind: writeDeleteRange, key: r.Lo, value: r.Hi})
}

// Len is the number of conditions and writes.
func (b *Batch) Len() int { return len(b.conditions) + len(b.writes) }

// Span is the smallest range that holds every key the batch names. The batch
// may be sent to a partition whose range contains it.
func (b *Batch) Span() partition.KeyRange {
	var s span
	for i := range b.conditions {
		s.add(b.conditions[i].key, successor(b.conditions[i].key))
	}
	for i := range b.writes {
		s.write(&b.writes[i])
	}
	return s.KeyRange
}

// span is the range of what was added to it.
type span struct {
	partition.KeyRange
	some bool
}

func (s *span) add(lo, hi []byte) {
	if !s.some || bytes.Compare(lo, s.Lo) < 0 {
		s.Lo = lo
	}
	if !s.some || len(s.Hi) > 0 && (len(hi) == 0 || bytes.Compare(hi, s.Hi) > 0) {
		s.Hi = hi
	}
	s.some = true
}

func (s *span) write(w *write) {
	if w.kind == writeDeleteRange {
		s.add(w.key, w.value)
	} else {
		s.add(w.key, successor(w.key))
	}
}

// successor is the least key above key.
func successor(key []byte) []byte { return append(bytes.Clone(key), 0) }

// Encode returns the command, or says which limit it is over.
func (b *Batch) Encode() ([]byte, error) {
	if n := b.Len(); n > MaxBatchOps {
		return nil, tooLarge("batch", n, MaxBatchOps, "conditions and writes")
	}
	size := 8
	for i := range b.conditions {
		c := &b.conditions[i]
		size += len(c.key) + len(c.value) + 12
	}
	for i := range b.writes {
		size += len(b.writes[i].key) + len(b.writes[i].value) + 6
	}
	out := start(commandBatch, size)
	out = binary.AppendUvarint(out, uint64(len(b.conditions)))
	for i := range b.conditions {
		c := &b.conditions[i]
		if err := c.check(); err != nil {
			return nil, err
		}
		out = c.append(out)
	}
	out = binary.AppendUvarint(out, uint64(len(b.writes)))
	for i := range b.writes {
		w := &b.writes[i]
		if err := w.check(); err != nil {
			return nil, err
		}
		out = w.append(out)
	}
	if len(out) > MaxCommandBytes {
		return nil, tooLarge("command", len(out), MaxCommandBytes, "bytes")
	}
	return out, nil
}

// Put is the command that writes a key.
func Put(key, value []byte) ([]byte, error) {
	var b Batch
	b.Put(key, value)
	return b.Encode()
}

// Delete is the command that removes a key, which need not be there.
func Delete(key []byte) ([]byte, error) {
	var b Batch
	b.Delete(key)
	return b.Encode()
}

// DeleteRange is the command that removes every key of a range.
func DeleteRange(r partition.KeyRange) ([]byte, error) {
	var b Batch
	b.DeleteRange(r)
	return b.Encode()
}

// CompareAndSet is the command that writes the condition's key if it holds.
func CompareAndSet(c Condition, value []byte) ([]byte, error) {
	var b Batch
	b.If(c)
	b.Put(c.key, value)
	return b.Encode()
}

// CompareAndDelete is the command that removes the condition's key if it holds.
func CompareAndDelete(c Condition) ([]byte, error) {
	var b Batch
	b.If(c)
	b.Delete(c.key)
	return b.Encode()
}

func (c *Condition) check() *partition.Error {
	if c.kind < ifAbsent || c.kind > ifVersion {
		return partition.Errorf(partition.CodeInvalid, "condition of kind %d", c.kind)
	}
	if err := checkKey(c.key); err != nil {
		return err
	}
	return checkValue(c.value)
}

func (c *Condition) append(b []byte) []byte {
	b = appendBytes(append(b, byte(c.kind)), c.key)
	switch c.kind {
	case ifValue:
		return appendBytes(b, c.value)
	case ifVersion:
		return binary.AppendUvarint(b, uint64(c.version))
	}
	return b
}

func (c *cursor) condition() (x Condition) {
	x.kind = conditionKind(c.byte())
	x.key = c.bytes()
	switch x.kind {
	case ifValue:
		x.value = c.bytes()
	case ifVersion:
		x.version = Version(c.number())
	}
	if c.err == nil {
		c.failWith(x.check())
	}
	return x
}

func (w *write) check() *partition.Error {
	switch w.kind {
	case writePut, writeDelete:
		if err := checkKey(w.key); err != nil {
			return err
		}
		return checkValue(w.value)
	case writeDeleteRange:
		if err := checkBound(w.key); err != nil {
			return err
		}
		return checkBound(w.value)
	}
	return partition.Errorf(partition.CodeInvalid, "write of kind %d", w.kind)
}

func (w *write) append(b []byte) []byte {
	b = appendBytes(append(b, byte(w.kind)), w.key)
	if w.kind == writeDelete {
		return b
	}
	return appendBytes(b, w.value)
}

func (c *cursor) write() (w write) {
	w.kind = writeKind(c.byte())
	w.key = c.bytes()
	if w.kind != writeDelete {
		w.value = c.bytes()
	}
	if c.err == nil {
		c.failWith(w.check())
	}
	return w
}

// command is an encoded batch that was checked: decoding it again cannot fail.
type command struct {
	conditions, writes []byte
	nc, nw             int
}

// parseCommand checks a payload as a whole, so that nothing of a bad one is
// executed. It allocates nothing.
func parseCommand(payload []byte) (cmd command, err error) {
	if len(payload) > MaxCommandBytes {
		return cmd, tooLarge("command", len(payload), MaxCommandBytes, "bytes")
	}
	c := cursor{b: payload}
	if k := c.kind(); c.err == nil && k != commandBatch {
		c.fail("command of kind %d", k)
	}
	cmd.nc = c.count(2)
	cmd.conditions = c.b
	for i := 0; i < cmd.nc && c.err == nil; i++ {
		c.condition()
	}
	cmd.nw = c.count(2)
	cmd.writes = c.b
	for i := 0; i < cmd.nw && c.err == nil; i++ {
		c.write()
	}
	if err := c.end(); err != nil {
		return command{}, err
	}
	if n := cmd.nc + cmd.nw; n > MaxBatchOps {
		return command{}, tooLarge("batch", n, MaxBatchOps, "conditions and writes")
	}
	return cmd, nil
}

// Check refuses a command that a partition would refuse, whatever its state.
// A front door calls it before the command costs a record in a log.
func Check(payload []byte) error {
	_, err := parseCommand(payload)
	return err
}

// ParseBatch decodes a command. The batch aliases payload.
func ParseBatch(payload []byte) (*Batch, error) {
	cmd, err := parseCommand(payload)
	if err != nil {
		return nil, err
	}
	b := &Batch{}
	c := cursor{b: cmd.conditions}
	for range cmd.nc {
		b.conditions = append(b.conditions, c.condition())
	}
	c = cursor{b: cmd.writes}
	for range cmd.nw {
		b.writes = append(b.writes, c.write())
	}
	return b, nil
}
