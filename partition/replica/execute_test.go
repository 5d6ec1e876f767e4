package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pando.dev/pando/partition"
)

// bank executes commands for the tests of the Executor: "set k v", "del k",
// "wipe", "scan", "big n", "fail", "refuse".
type bank struct{}

func (bank) Apply(w partition.Writer, c partition.Command) ([]byte, error) {
	f := strings.Fields(string(c.Payload))
	switch f[0] {
	case "set":
		old, _, _ := w.Get([]byte(f[1]))
		old = bytes.Clone(old)
		return old, w.Set([]byte(f[1]), []byte(f[2]))
	case "del":
		return nil, w.Delete([]byte(f[1]))
	case "wipe":
		if err := w.DeleteRange(partition.KeyRange{Lo: []byte("z"), Hi: []byte("a")}); err != nil {
			return nil, err
		}
		return nil, w.DeleteRange(partition.KeyRange{})
	case "big":
		var n int
		fmt.Sscan(f[1], &n)
		return make([]byte, n), w.Set([]byte("big"), []byte("done"))
	case "fail":
		return nil, partition.Errorf(partition.CodeNoSpace, "the disk is full")
	}
	return []byte("no such command"), nil
}

func (bank) Read(r partition.Reader, q []byte) ([]byte, error) {
	var out []string
	for p, err := range r.Scan(partition.KeyRange{Lo: q}) {
		if err != nil {
			return nil, err
		}
		v, _, _ := r.Get(p.Key) // a nested read must not disturb the scan
		out = append(out, string(p.Key)+"="+string(v))
	}
	var back []string
	for p := range r.ScanBack(partition.KeyRange{Lo: q}) {
		back = append([]string{string(p.Key) + "=" + string(p.Value)}, back...)
		if len(back) > 100 {
			break
		}
	}
	if !slices.Equal(out, back) {
		return nil, fmt.Errorf("forward %v, backward %v", out, back)
	}
	return []byte(strings.Join(out, " ")), nil
}

// engine is an Executor over a state in memory, with the next index at hand.
type engine struct {
	t     *testing.T
	exec  *Executor
	state *mapState
	next  partition.Index
}

func newEngine(t *testing.T) *engine {
	e := &engine{t: t, state: newMapState(), next: 2}
	e.reload()
	return e
}

func (e *engine) reload() {
	e.t.Helper()
	x, err := NewExecutor(bank{}, e.state)
	if err != nil {
		e.t.Fatal(err)
	}
	e.exec = x
}

func (e *engine) apply(k partition.Kind, payload []byte) Result {
	e.t.Helper()
	r, err := e.try(k, payload)
	if err != nil {
		e.t.Fatal(err)
	}
	return r
}

func (e *engine) try(k partition.Kind, payload []byte) (Result, error) {
	rec := partition.NewRecord(partition.Header{Group: 7, Index: e.next, Epoch: 1, Kind: k}, payload)
	e.next++
	return e.exec.Apply(e.state, rec)
}

func (e *engine) do(s partition.SessionID, seq uint64, cmd string) Result {
	e.t.Helper()
	return e.apply(partition.KindCommand, AppendCommand(nil, s, seq, []byte(cmd)))
}

func (e *engine) open() partition.SessionID {
	e.t.Helper()
	return e.apply(partition.KindSession, AppendOpenSession(nil)).Session
}

func (e *engine) read(q string) string {
	e.t.Helper()
	b, err := e.exec.Read(e.state, []byte(q))
	if err != nil {
		e.t.Fatal(err)
	}
	return string(b)
}

func TestExecutor(t *testing.T) {
	e := newEngine(t)
	none := partition.SessionID{}
	e.apply(partition.KindNoop, nil)
	e.do(none, 0, "set a 1")
	if r := e.do(none, 0, "set a 2"); string(r.Data) != "1" || r.Repeated || r.Err != nil {
		t.Errorf("set gives %+v", r)
	}
	e.do(none, 0, "set b 3")
	e.do(none, 0, "del b")
	if got := e.read(""); got != "a=2" {
		t.Errorf("the state is %q", got)
	}
	s := e.open()
	if s != (partition.SessionID{Group: 7, Index: e.next - 1}) || e.exec.Sessions() != 1 {
		t.Errorf("session %+v of %d", s, e.exec.Sessions())
	}
	e.do(s, 1, "wipe")
	if got := e.read(""); got != "" {
		t.Errorf("wiped, the state is %q", got)
	}
	// The partition's wipe has not touched the sessions.
	if r := e.do(s, 1, "wipe"); !r.Repeated {
		t.Errorf("a retry gives %+v", r)
	}
}

// X1: a retry gives the first result, also after a restart and in any order.
func TestExactlyOnce(t *testing.T) {
	e := newEngine(t)
	s := e.open()
	for seq := uint64(1); seq <= 100; seq++ {
		e.do(s, seq, fmt.Sprintf("set k %d", seq))
	}
	for round := range 2 {
		for seq := uint64(100); seq > 36; seq-- {
			r := e.do(s, seq, "set k wrong")
			want := fmt.Sprint(seq - 1)
			if !r.Repeated || r.Err != nil || string(r.Data) != want {
				t.Fatalf("round %d: retry of %d gives %+v, not %s", round, seq, r, want)
			}
		}
		for _, seq := range []uint64{1, 35, 36} {
			if r := e.do(s, seq, "set k wrong"); r.Err == nil || r.Err.Code != partition.CodeSessionExpired {
				t.Fatalf("round %d: retry of %d gives %+v", round, seq, r)
			}
		}
		if got := e.read(""); got != "k=100" {
			t.Fatalf("round %d: the state is %s", round, got)
		}
		e.reload()
	}
	// Numbers may come in any order within the window, each once.
	s = e.open()
	for _, seq := range []uint64{3, 1, 64, 2, 65} {
		if r := e.do(s, seq, "set x y"); r.Repeated || r.Err != nil {
			t.Errorf("command %d gives %+v", seq, r)
		}
	}
	if r := e.do(s, 1, "set x y"); r.Err == nil {
		t.Errorf("command 1 after 65 gives %+v", r)
	}
	// 66 makes the window 3..66: 2 was executed, and its slot is not reused yet.
	e.do(s, 66, "set x y")
	if r := e.do(s, 5, "set x z"); r.Err != nil || r.Repeated {
		t.Errorf("command 5, never executed, gives %+v", r)
	}
}

// X3: an expired session never executes anything again.
func TestSessionLimit(t *testing.T) {
	e := newEngine(t)
	e.exec.sessions.limit = 3
	a, b, c := e.open(), e.open(), e.open()
	e.do(a, 1, "set a 1") // b is the oldest now
	d := e.open()
	if e.exec.Sessions() != 3 || e.exec.sessions.find(b) != nil {
		t.Fatalf("%d sessions, b among them: %v", e.exec.Sessions(), e.exec.sessions.find(b) != nil)
	}
	if r := e.do(b, 1, "set b 1"); r.Err == nil || r.Err.Code != partition.CodeSessionExpired {
		t.Errorf("a command of an expired session gives %+v", r)
	}
	e.reload()
	e.exec.sessions.limit = 3
	if e.exec.sessions.oldest().id != c {
		t.Errorf("after a restart the oldest session is another")
	}
	// Expired on purpose; one that is not open is no mistake.
	r := e.apply(partition.KindSession, AppendExpireSessions(nil, a, b, d))
	if r.Err != nil || e.exec.Sessions() != 1 {
		t.Errorf("expire gives %+v, %d are left", r, e.exec.Sessions())
	}
	if got := e.read(""); got != "a=1" {
		t.Errorf("the state is %s", got)
	}
	n := 0
	for range e.state.Scan(partition.KeyRange{Lo: []byte{spaceSessions}, Hi: []byte{spaceSessions + 1}}) {
		n++
	}
	if n != 2 { // and the one that says that some have gone
		t.Errorf("%d session rows are left for one session", n)
	}
}

func TestExecutorRefuses(t *testing.T) {
	e := newEngine(t)
	s := e.open()
	for _, c := range []struct {
		name    string
		kind    partition.Kind
		payload []byte
		want    partition.Code
	}{
		{"a session nobody opened", partition.KindCommand, AppendCommand(nil, partition.SessionID{Group: 9, Index: 9}, 1, nil), partition.CodeSessionExpired},
		{"number 0", partition.KindCommand, AppendCommand(nil, s, 0, nil), partition.CodeInvalid},
		{"an empty command", partition.KindCommand, nil, partition.CodeCorrupt},
		{"a cut command", partition.KindCommand, []byte{commandSession, 1, 2}, partition.CodeCorrupt},
		{"an empty session record", partition.KindSession, nil, partition.CodeInvalid},
		{"an unknown session record", partition.KindSession, []byte{9}, partition.CodeInvalid},
		{"half an expired session", partition.KindSession, []byte{sessionExpire, 1}, partition.CodeInvalid},
	} {
		before := e.state.clone()
		r, err := e.try(c.kind, c.payload)
		if err != nil || r.Err == nil || r.Err.Code != c.want {
			t.Errorf("%s: %+v, %v", c.name, r, err)
		}
		if !before.equal(e.state) {
			t.Errorf("%s: changes the state", c.name)
		}
	}
	for _, c := range []struct {
		name    string
		kind    partition.Kind
		payload []byte
		want    partition.Code
	}{
		{"a newer command format", partition.KindCommand, []byte{9}, partition.CodeNewerFormat},
		{"a newer kind", 77, nil, partition.CodeNewerFormat},
		{"a broken configuration", partition.KindMember, []byte{1}, partition.CodeCorrupt},
		{"a state that fails", partition.KindCommand, AppendCommand(nil, s, 1, []byte("fail")), partition.CodeNoSpace},
	} {
		if _, err := e.try(c.kind, c.payload); partition.CodeOf(err) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if r := e.do(s, 1, "set a 1"); r.Repeated || r.Err != nil {
		t.Errorf("what failed counts as executed: %+v", r)
	}
}

// A write that is refused leaves the table as it was: after the host has thrown
// the writes of the record away, state and sessions agree.
func TestExecutorRejectedWrite(t *testing.T) {
	e := newEngine(t)
	s := e.open()
	full := errors.New("disk full")
	for name, apply := range map[string]func() (Result, error){
		"in the partition": func() (Result, error) {
			return e.try(partition.KindCommand, AppendCommand(nil, s, 1, []byte("set a 1")))
		},
		"of the result": func() (Result, error) {
			return e.try(partition.KindCommand, AppendCommand(nil, s, 1, []byte("del a")))
		},
		"of a session": func() (Result, error) { return e.try(partition.KindSession, AppendOpenSession(nil)) },
		"of a configuration": func() (Result, error) {
			m, _ := members(3).AppendBinary(nil)
			return e.try(partition.KindMember, m)
		},
	} {
		before := e.state.clone()
		e.state.reject = full
		if _, err := apply(); !errors.Is(err, full) {
			t.Errorf("%s: %v", name, err)
		}
		e.state = before
		if e.exec.Sessions() != 1 || e.exec.sessions.find(s).judge(1) != execute || e.exec.Configuration().Membership != nil {
			t.Errorf("%s: the table has changed", name)
		}
		e.reload()
	}
	if r := e.do(s, 1, "set a 1"); r.Repeated || r.Err != nil {
		t.Errorf("afterwards the command gives %+v", r)
	}
}

func TestResultLimit(t *testing.T) {
	e := newEngine(t)
	s := e.open()
	if r := e.do(s, 1, fmt.Sprintf("big %d", MaxResultBytes)); r.Err != nil || len(r.Data) != MaxResultBytes {
		t.Errorf("a result of the greatest size: %v", r.Err)
	}
	for range 2 { // the retry must say the same
		r := e.do(s, 2, fmt.Sprintf("big %d", MaxResultBytes+1))
		if r.Err == nil || r.Err.Code != partition.CodeTooLarge || !strings.Contains(r.Err.Why, "was executed") {
			t.Errorf("a result too large: %v", r.Err)
		}
	}
	if got := e.read("b"); got != "big=done" {
		t.Errorf("the state is %s", got)
	}
}

// The configuration last applied is in the state, for the day when its record
// has been truncated.
func TestExecutorConfiguration(t *testing.T) {
	e := newEngine(t)
	m := members(3)
	m.Version = 5
	payload, _ := m.AppendBinary(nil)
	e.apply(partition.KindMode, payload)
	for range 2 {
		c := e.exec.Configuration()
		if c.Index != 2 || c.Membership == nil || c.Membership.Version != 5 || len(c.Membership.Members) != 3 {
			t.Fatalf("configuration %+v", c)
		}
		e.reload()
	}
}

func TestExecutorRefusesState(t *testing.T) {
	session := append([]byte{spaceSessions}, make([]byte, 16)...)
	slot := append(bytes.Clone(session), 1)
	for name, row := range map[string]struct{ key, value []byte }{
		"a short configuration":  {configurationKey[:], []byte{1}},
		"a broken configuration": {configurationKey[:], make([]byte, 9)},
		"a session key too long": {append(bytes.Clone(slot), 1), make([]byte, 30)},
		"a short slot":           {slot, make([]byte, slotHead-1)},
	} {
		st := newMapState()
		st.rows[string(row.key)] = row.value
		if _, err := NewExecutor(bank{}, st); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	// A result that should be in the state and is not is damage, not a new try.
	e := newEngine(t)
	s := e.open()
	e.do(s, 1, "set a 1")
	delete(e.state.rows, string(e.exec.slotKey(s, 1)))
	if _, err := e.try(partition.KindCommand, AppendCommand(nil, s, 1, []byte("set a 2"))); partition.CodeOf(err) != partition.CodeCorrupt {
		t.Errorf("a lost result: %v", err)
	}
}

func TestExecutorOrder(t *testing.T) {
	e := newEngine(t)
	e.apply(partition.KindNoop, nil)
	e.next--
	defer func() {
		if recover() == nil {
			t.Error("a record is applied twice")
		}
	}()
	e.apply(partition.KindNoop, nil)
}

func TestParseCommand(t *testing.T) {
	s := partition.SessionID{Group: 1, Index: 2}
	b := AppendCommand([]byte("x"), s, 3, []byte("body"))
	got, seq, body, err := ParseCommand(b[1:])
	if err != nil || got != s || seq != 3 || string(body) != "body" {
		t.Errorf("%v %d %q %v", got, seq, body, err)
	}
	got, seq, body, err = ParseCommand(AppendCommand(nil, partition.SessionID{}, 9, []byte("b")))
	if err != nil || got != (partition.SessionID{}) || seq != 0 || string(body) != "b" {
		t.Errorf("without a session: %v %d %q %v", got, seq, body, err)
	}
}

func FuzzParseCommand(f *testing.F) {
	f.Add([]byte{})
	f.Add(AppendCommand(nil, partition.SessionID{}, 0, []byte("x")))
	f.Add(AppendCommand(nil, partition.SessionID{Group: 1, Index: 2}, 3, []byte("x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, seq, body, err := ParseCommand(b)
		if err != nil {
			var e *partition.Error
			if !errors.As(err, &e) {
				t.Fatalf("%v is not typed", err)
			}
			return
		}
		if again := AppendCommand(nil, s, seq, body); !bytes.Equal(again, b) {
			t.Fatalf("%x becomes %x", b, again)
		}
	})
}

// A hostile payload of any kind never stops an Executor.
func FuzzExecutor(f *testing.F) {
	f.Add(uint8(2), AppendCommand(nil, partition.SessionID{Group: 7, Index: 2}, 1, []byte("set a b")))
	f.Add(uint8(5), AppendExpireSessions(nil, partition.SessionID{Group: 7, Index: 2}))
	f.Fuzz(func(t *testing.T, kind uint8, payload []byte) {
		e := newEngine(t)
		e.open()
		if partition.Kind(kind) == partition.KindCommand {
			if _, _, body, err := ParseCommand(payload); err == nil && len(bytes.Fields(body)) < 3 {
				return // the test's partition is not made for it
			}
		}
		_, _ = e.try(partition.Kind(kind), payload)
		e.reload()
	})
}

func BenchmarkExecutor(b *testing.B) {
	state := newMapState()
	e, err := NewExecutor(&opPartition{n: &node{w: newWorld(1, calm())}}, state)
	if err != nil {
		b.Fatal(err)
	}
	open := partition.NewRecord(partition.Header{Group: 7, Index: 1, Kind: partition.KindSession}, AppendOpenSession(nil))
	res, _ := e.Apply(state, open)
	var body [8]byte
	b.ReportAllocs()
	for i := range b.N {
		binary.LittleEndian.PutUint64(body[:], uint64(i))
		rec := partition.NewRecord(partition.Header{Group: 7, Index: partition.Index(i + 2), Kind: partition.KindCommand},
			AppendCommand(nil, res.Session, uint64(i+1), body[:]))
		if _, err := e.Apply(state, rec); err != nil {
			b.Fatal(err)
		}
	}
}
