package replica

import (
	"bytes"
	"testing"

	"pando.dev/pando/partition"
)

// FuzzSessionRows: the rows of a state that came as a copy, or from a disk, are
// loaded as they are or refused; a loaded session answers what its rows say.
func FuzzSessionRows(f *testing.F) {
	e := &Executor{}
	id := partition.SessionID{Group: 7, Index: 2}
	row := func(seq uint64, data string) (key, value []byte) {
		if err := e.remember(keep{key: &key, value: &value}, id, seq, 9, Result{Data: []byte(data)}); err != nil {
			f.Fatal(err)
		}
		return key, value
	}
	key, value := row(5, "ok")
	f.Add(key, value)
	f.Add(key[:len(key)-1], []byte{})
	f.Add(key, value[:slotHead-1])
	f.Add(append(bytes.Clone(key[:len(key)-1]), 63), value)
	f.Add([]byte{spaceSessions}, []byte{1})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if len(key) == 0 || key[0] != spaceSessions {
			key = append([]byte{spaceSessions}, key...)
		}
		x := newEngine(t)
		if err := x.state.Set(key, value); err != nil {
			t.Fatal(err)
		}
		exec, err := NewExecutor(bank{}, x.state)
		if err != nil {
			if partition.CodeOf(err) != partition.CodeCorrupt {
				t.Fatalf("%x = %x: %v", key, value, err)
			}
			return
		}
		x.exec = exec
		for seq := range uint64(4) {
			if _, err := x.try(partition.KindCommand, AppendCommand(nil, id, seq+1, []byte("set a b"))); err != nil && partition.CodeOf(err) != partition.CodeCorrupt {
				t.Fatalf("%x = %x, command %d: %v", key, value, seq+1, err)
			}
		}
	})
}

// keep is a Writer that keeps the one row that is set.
type keep struct {
	partition.Writer
	key, value *[]byte
}

func (k keep) Set(key, value []byte) error {
	*k.key, *k.value = bytes.Clone(key), bytes.Clone(value)
	return nil
}
