package sim

import (
	"encoding/binary"
	"errors"

	"pando.dev/pando/partition"
)

// verb is what a command of the simulator's kind does.
type verb uint8

const (
	verbPut      verb = iota + 1 // register key = arg
	verbCas                      // register key = arg, if operation old wrote it last
	verbAppend                   // arg is mixed into register key
	verbDelete                   // register key goes
	verbTransfer                 // arg goes from account key to account other
	verbGet                      // queries: one register
	verbSum                      // all accounts
)

// command is one operation on the registers and accounts of a group.
type command struct {
	verb       verb
	id         uint64 // of the operation, unique in a run; also in every value that it writes
	key, other uint16
	arg, old   uint64
}

const commandBytes = 1 + 8 + 2 + 2 + 8 + 8

func (c *command) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(append(b, byte(c.verb)), c.id)
	b = le.AppendUint16(le.AppendUint16(b, c.key), c.other)
	return le.AppendUint64(le.AppendUint64(b, c.arg), c.old)
}

func parseCommand(b []byte) (c command, ok bool) {
	if len(b) < commandBytes { // behind it is what the operation carries besides
		return c, false
	}
	le := binary.LittleEndian
	return command{
		verb: verb(b[0]), id: le.Uint64(b[1:]), key: le.Uint16(b[9:]), other: le.Uint16(b[11:]),
		arg: le.Uint64(b[13:]), old: le.Uint64(b[21:]),
	}, true
}

// register is what one key holds, how often it was written, and by which
// operation last. The last two outlive a delete, so that no two versions of a key
// are equal.
type register struct{ value, writes, by uint64 }

const registerBytes = 24

func parseRegister(b []byte) (r register) {
	if len(b) == registerBytes {
		le := binary.LittleEndian
		r = register{le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:])}
	}
	return r
}

// bytes is the encoding in memory of its own.
func (r register) bytes() []byte { return r.append(make([]byte, 0, registerBytes)) }

func (r register) append(b []byte) []byte {
	le := binary.LittleEndian
	return le.AppendUint64(le.AppendUint64(le.AppendUint64(b, r.value), r.writes), r.by)
}

// Classes of rows. A register that was deleted leaves a grave with its counts.
const (
	rowRegister = 'r'
	rowGrave    = 'd'
	rowAccount  = 'a'
)

// registers is the partition kind of the simulator: registers, and accounts whose
// sum never changes. A command's result is the first of those that it touched as
// it is afterwards.
type registers struct {
	key [6]byte // table, part, key, class
	buf []byte
}

// Parts of a table. The accounts stay together when it is divided, so that they can
// be added up; a register and its grave do.
const (
	partAccounts  = 0
	partRegisters = 1
)

// newRegisters is the kind for a group of a table. Its keys begin with the table's
// ordinal, which is what the catalog's key ranges go by.
func newRegisters(table int) *registers {
	p := &registers{}
	binary.BigEndian.PutUint16(p.key[:], uint16(table))
	return p
}

func (p *registers) at(class byte, k uint16) []byte {
	p.key[2], p.key[5] = partRegisters, class
	if class == rowAccount {
		p.key[2] = partAccounts
	}
	binary.BigEndian.PutUint16(p.key[3:], k)
	return p.key[:]
}

// keyOf is where the rows of a register begin.
func keyOf(table int, k uint16) []byte {
	b := append(binary.BigEndian.AppendUint16(nil, uint16(table)), partRegisters)
	return binary.BigEndian.AppendUint16(b, k)
}

// span is the range of the rows that a command, or a query, depends on.
func (c *command) span(table int) partition.KeyRange {
	if c.verb == verbTransfer || c.verb == verbSum {
		lo := binary.BigEndian.AppendUint16(nil, uint16(table))
		return partition.KeyRange{Lo: append(lo, partAccounts), Hi: append(lo[:2:2], partRegisters)}
	}
	lo := keyOf(table, c.key)
	return partition.KeyRange{Lo: lo, Hi: append(lo[:len(lo):len(lo)], 0xff)}
}

var _ partition.Splitter = (*registers)(nil)

// Span implements partition.Splitter.
func (p *registers) Span(payload []byte) (partition.KeyRange, error) {
	c, ok := parseCommand(payload)
	if !ok {
		return partition.KeyRange{}, errors.New("no command")
	}
	return c.span(int(binary.BigEndian.Uint16(p.key[:]))), nil
}

func (p *registers) load(r partition.Reader, class byte, k uint16) (register, error) {
	b, ok, err := r.Get(p.at(class, k))
	if !ok && err == nil && class == rowRegister {
		b, _, err = r.Get(p.at(rowGrave, k))
	}
	return parseRegister(b), err
}

// store writes a row, as the given operation's.
func (p *registers) store(w partition.Writer, class byte, k uint16, id uint64, r *register) error {
	r.writes, r.by = r.writes+1, id
	p.buf = r.append(p.buf[:0])
	return w.Set(p.at(class, k), p.buf)
}

// Apply implements partition.Partition.
func (p *registers) Apply(w partition.Writer, x partition.Command) ([]byte, error) {
	c, ok := parseCommand(x.Payload)
	if !ok {
		return []byte("?"), nil
	}
	if c.verb == verbTransfer {
		return p.transfer(w, &c)
	}
	r, err := p.load(w, rowRegister, c.key)
	if err != nil {
		return nil, err
	}
	class := byte(rowRegister)
	switch c.verb {
	case verbPut:
		r.value = c.arg
	case verbCas:
		if r.by != c.old {
			return r.bytes(), nil
		}
		r.value = c.arg
	case verbAppend:
		r.value = mix(r.value ^ c.arg)
	case verbDelete:
		r.value, class = 0, rowGrave
		if err := w.Delete(p.at(rowRegister, c.key)); err != nil {
			return nil, err
		}
	}
	if err := p.store(w, class, c.key, c.id, &r); err != nil {
		return nil, err
	}
	return r.bytes(), nil
}

// transfer moves from one account to another one.
func (p *registers) transfer(w partition.Writer, c *command) ([]byte, error) {
	from, err := p.load(w, rowAccount, c.key)
	if err != nil {
		return nil, err
	}
	to, err := p.load(w, rowAccount, c.other)
	if err != nil {
		return nil, err
	}
	from.value, to.value = from.value-c.arg, to.value+c.arg
	if err := p.store(w, rowAccount, c.key, c.id, &from); err != nil {
		return nil, err
	}
	if err := p.store(w, rowAccount, c.other, c.id, &to); err != nil {
		return nil, err
	}
	return from.bytes(), nil
}

// Read implements partition.Partition.
func (p *registers) Read(r partition.Reader, query []byte) ([]byte, error) {
	c, ok := parseCommand(query)
	if !ok {
		return []byte("?"), nil
	}
	if c.verb != verbSum {
		v, err := p.load(r, rowRegister, c.key)
		return v.bytes(), err
	}
	var sum register
	for pair, err := range r.Scan(c.span(int(binary.BigEndian.Uint16(p.key[:])))) {
		if err != nil {
			return nil, err
		}
		x := parseRegister(pair.Value)
		sum.value, sum.writes = sum.value+x.value, sum.writes+x.writes
	}
	return sum.bytes(), nil
}
