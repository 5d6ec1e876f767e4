package sim

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"pando.dev/pando/partition"
)

// catalog says which keys a group has, as the control group's does. Nothing
// divides or joins groups yet, so there is one version of it.
type catalog struct {
	version uint64
	ranges  []partition.KeyRange // by ordinal of the group, in the order of keys
}

// newCatalog deals all keys to so many groups, by the first two bytes.
func newCatalog(groups int) *catalog {
	c := &catalog{version: 1, ranges: make([]partition.KeyRange, groups)}
	for i := 1; i < groups; i++ {
		at := binary.BigEndian.AppendUint16(nil, uint16(i))
		c.ranges[i-1].Hi, c.ranges[i].Lo = at, at
	}
	return c
}

// check says what is wrong with a version: every key is in one range.
func (c *catalog) check() error {
	var at []byte
	for i, r := range c.ranges {
		last := i == len(c.ranges)-1
		switch {
		case r.Empty():
			return fmt.Errorf("version %d: the range %s of group %d is empty", c.version, r, i)
		case !bytes.Equal(r.Lo, at):
			return fmt.Errorf("version %d: group %d begins at %q, the one before ends at %q", c.version, i, r.Lo, at)
		case last != (len(r.Hi) == 0):
			return fmt.Errorf("version %d: group %d ends at %q", c.version, i, r.Hi)
		}
		at = r.Hi
	}
	return nil
}

// holds reports whether all keys of a command are the group's.
func (c *catalog) holds(group int, cmd *command) bool {
	p := newRegisters(group)
	for _, k := range [...]uint16{cmd.key, cmd.other} {
		if !c.ranges[group].Contains(p.at(rowRegister, k)) {
			return false
		}
	}
	return true
}
