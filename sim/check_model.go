package sim

import (
	"sort"

	"pando.dev/pando/partition"
)

// model is what a group's registers and accounts must be, worked out from the
// committed commands alone: each version of each key, and from which record on.
type model struct {
	registers, accounts []versions
	// moved has, for each transfer, its record.
	moved []partition.Index
}

// versions are those of one key; a version's number is how often the key was
// written. The first is that of a key never written.
type versions []version

type version struct {
	at partition.Index // as partition.Extent.At has it
	register
}

func newModel(k *Knobs) *model {
	m := &model{registers: make([]versions, max(1, k.Keys)), accounts: make([]versions, accounts(k))}
	for _, all := range [][]versions{m.registers, m.accounts} {
		for i := range all {
			all[i] = versions{{}}
		}
	}
	return m
}

func (v versions) last() *version { return &v[len(v)-1] }

// add adds the next version.
func (v *versions) add(at partition.Index, value, by uint64) register {
	r := register{value, v.last().writes + 1, by}
	*v = append(*v, version{at, r})
	return r
}

// at is the version in the state that reflects i.
func (v versions) at(i partition.Index) register {
	n := sort.Search(len(v), func(n int) bool { return v[n].at > i })
	return v[n-1].register
}

// fits reports whether a register is what a state that reflects i shows.
func (v versions) fits(r register, i partition.Index) bool {
	n := r.writes
	return n < uint64(len(v)) && v[n].register == r && v[n].at <= i && (n+1 == uint64(len(v)) || v[n+1].at > i)
}

// execute executes a command and returns its result; ok is false if there is no
// such key.
func (m *model) execute(at partition.Index, c *command) (r register, ok bool) {
	if c.verb == verbTransfer {
		if int(max(c.key, c.other)) >= len(m.accounts) || c.key == c.other {
			return r, false
		}
		from, to := &m.accounts[c.key], &m.accounts[c.other]
		r = from.add(at, from.last().value-c.arg, c.id)
		to.add(at, to.last().value+c.arg, c.id)
		m.moved = append(m.moved, at)
		return r, true
	}
	if int(c.key) >= len(m.registers) {
		return r, false
	}
	v := &m.registers[c.key]
	now := v.last().register
	switch c.verb {
	case verbPut:
		return v.add(at, c.arg, c.id), true
	case verbAppend:
		return v.add(at, mix(now.value^c.arg), c.id), true
	case verbDelete:
		return v.add(at, 0, c.id), true
	case verbCas:
		if now.by != c.old {
			return now, true
		}
		return v.add(at, c.arg, c.id), true
	}
	return r, false
}

// sums reports whether r is what adding up all accounts gives in the state that
// reflects i: nothing, since whatever one has another one lacks, after so many
// writes.
func (m *model) sums(r register, i partition.Index) bool {
	n := int(r.writes / 2)
	return r.value == 0 && r.writes%2 == 0 && n <= len(m.moved) &&
		(n == 0 || m.moved[n-1] <= i) && (n == len(m.moved) || m.moved[n] > i)
}

// answers reports whether a read of the state that reflects i gives r.
func (m *model) answers(c *command, r register, i partition.Index) bool {
	if c.verb == verbSum {
		return m.sums(r, i)
	}
	return int(c.key) < len(m.registers) && m.registers[c.key].fits(r, i)
}

// lacks names the first row of a state that is not what the model has at i.
// Keys that are another group's there are left out.
func (m *model) lacks(s *state, q *groupCheck, i partition.Index) (class byte, key int, is, must register) {
	table, at := q.g.table, q.reflects(i)
	p := newRegisters(table)
	r := userRows{s}
	for k, v := range m.registers {
		if c := (command{verb: verbGet, key: uint16(k)}); !q.owns(c.span(table), i) {
			continue
		}
		if is, _ = p.load(r, rowRegister, uint16(k)); is != v.at(at) {
			return rowRegister, k, is, v.at(at)
		}
	}
	if c := (command{verb: verbSum}); !q.owns(c.span(table), i) {
		return 0, 0, is, must
	}
	for k, v := range m.accounts {
		if is, _ = p.load(r, rowAccount, uint16(k)); is != v.at(at) {
			return rowAccount, k, is, v.at(at)
		}
	}
	return 0, 0, is, must
}

// userRows shows the kind's own rows of a state, as the executor does.
type userRows struct{ *state }

// spaceUser is the first byte of a kind's rows in a state.
const spaceUser = 3

// Get implements partition.Reader.
func (u userRows) Get(key []byte) ([]byte, bool, error) {
	var b [8]byte
	return u.state.Get(append(append(b[:0], spaceUser), key...))
}
