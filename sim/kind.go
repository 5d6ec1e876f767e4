package sim

import (
	"encoding/binary"

	"pando.dev/pando/partition"
)

// verb is what a command of the register kind does.
type verb uint8

const (
	verbPut      verb = iota + 1 // key = arg
	verbCas                      // key = arg if it is old
	verbAppend                   // arg is mixed into key
	verbTransfer                 // arg goes from key to other
	verbGet                      // queries only
)

// command is one operation on the registers of a group.
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
	if len(b) != commandBytes {
		return c, false
	}
	le := binary.LittleEndian
	return command{
		verb: verb(b[0]), id: le.Uint64(b[1:]), key: le.Uint16(b[9:]), other: le.Uint16(b[11:]),
		arg: le.Uint64(b[13:]), old: le.Uint64(b[21:]),
	}, true
}

// register is the value of one key: what it holds, how often it was written, and
// by which operation last.
type register struct{ value, writes, by uint64 }

const registerBytes = 24

func parseRegister(b []byte) (r register) {
	if len(b) == registerBytes {
		le := binary.LittleEndian
		r = register{le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:])}
	}
	return r
}

func (r register) append(b []byte) []byte {
	le := binary.LittleEndian
	return le.AppendUint64(le.AppendUint64(le.AppendUint64(b, r.value), r.writes), r.by)
}

// registers is the partition kind of the simulator. A command's result is the
// registers that it touched as they are afterwards; a query's answer is one of
// them.
type registers struct {
	key [2]byte
	buf []byte
}

func (p *registers) load(r partition.Reader, k uint16) (register, error) {
	binary.BigEndian.PutUint16(p.key[:], k)
	b, _, err := r.Get(p.key[:])
	return parseRegister(b), err
}

func (p *registers) store(w partition.Writer, k uint16, r register) error {
	binary.BigEndian.PutUint16(p.key[:], k)
	p.buf = r.append(p.buf[:0])
	return w.Set(p.key[:], p.buf)
}

// Apply implements partition.Partition.
func (p *registers) Apply(w partition.Writer, x partition.Command) ([]byte, error) {
	c, ok := parseCommand(x.Payload)
	if !ok {
		return []byte("?"), nil
	}
	r, err := p.load(w, c.key)
	if err != nil {
		return nil, err
	}
	switch c.verb {
	case verbPut:
		r.value = c.arg
	case verbCas:
		if r.value != c.old {
			return r.append(nil), nil
		}
		r.value = c.arg
	case verbAppend:
		r.value = mix(r.value ^ c.arg)
	case verbTransfer:
		o, err := p.load(w, c.other)
		if err != nil {
			return nil, err
		}
		if c.other != c.key {
			r.value, o.value = r.value-c.arg, o.value+c.arg
			o.writes, o.by = o.writes+1, c.id
			if err := p.store(w, c.other, o); err != nil {
				return nil, err
			}
		}
	}
	r.writes, r.by = r.writes+1, c.id
	return r.append(nil), p.store(w, c.key, r)
}

// Read implements partition.Partition.
func (p *registers) Read(r partition.Reader, query []byte) ([]byte, error) {
	c, _ := parseCommand(query)
	v, err := p.load(r, c.key)
	return v.append(nil), err
}
