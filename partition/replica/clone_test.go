package replica

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"pando.dev/pando/partition"
)

// A filler gives every field of a value, exported or not, a value of its own that
// is not zero: two elements per slice, no hook, no work.
type filler struct {
	t *testing.T
	n uint64
}

func (f *filler) fill(v reflect.Value) {
	f.n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(open(v.Field(i)))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem())
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[partition.Record]() {
			v.Set(reflect.ValueOf(partition.NewRecord(partition.Header{Group: 7, Index: partition.Index(f.n)})))
			return
		}
		if v.Type().Elem().Kind() == reflect.Interface {
			return // work that was not taken: fingerprints come between events
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 8))
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.Interface, reflect.Func:
	default:
		bump(f.t, v, f.n)
	}
}

// bump moves a leaf by n.
func bump(t *testing.T, v reflect.Value, n uint64) {
	t.Helper()
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + int64(n))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(v.Uint() + n%200 + 1)
	case reflect.String:
		v.SetString(v.String() + "x")
	default:
		t.Fatalf("a field of type %s: teach this test, Clone and AppendFingerprint about it", v.Type())
	}
}

// open makes an unexported field accessible.
func open(v reflect.Value) reflect.Value {
	return reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
}

func filled(t *testing.T) *Replica {
	r := new(Replica)
	f := &filler{t: t}
	v := reflect.ValueOf(r).Elem()
	for i := range v.NumField() {
		if v.Type().Field(i).Name != "cfg" {
			f.fill(open(v.Field(i)))
		}
	}
	r.cfg = Config{Group: 7, Self: 1, Node: "n1"}
	r.phase = gathering // what an attempt has counts while it lasts
	return r
}

// under reports whether a path is one of the list or below it.
func under(list []string, path string) bool {
	return slices.ContainsFunc(list, func(p string) bool {
		return path == p || strings.HasPrefix(path, p+".") || strings.HasPrefix(path, p+"[")
	})
}

// TestCloneSharesNothing looks at every field of a replica by reflection: what a
// clone shares with its original must be named here, because it is never written
// again after it was made.
func TestCloneSharesNothing(t *testing.T) {
	shared := []string{
		"active[]",   // configurations
		"log.tail[]", // records
		"log.configs[].Membership", "removal.without", "decree.next", "attempt.probed[].answer.Without",
		"mastery.proposed[].Payload", "heir.proposed[].Payload", // belong to the log once given
		"hand.goes", // a message
		"view",      // immutable
	}
	r := filled(t)
	c := r.Clone(nil, nil)
	if !reflect.DeepEqual(r, c) {
		t.Fatal("the clone differs from its original")
	}
	if !bytes.Equal(r.AppendFingerprint(nil), c.AppendFingerprint(nil)) {
		t.Fatal("the clone's fingerprint differs")
	}
	var found []string
	var walk func(path string, a, b reflect.Value)
	walk = func(path string, a, b reflect.Value) {
		if path == "cfg" {
			return // Neighbours and Rand are given to Clone, the rest is shared
		}
		switch a.Kind() {
		case reflect.Struct:
			for i := range a.NumField() {
				walk(strings.TrimPrefix(path+"."+a.Type().Field(i).Name, "."), open(a.Field(i)), open(b.Field(i)))
			}
		case reflect.Pointer, reflect.Slice:
			if a.Pointer() != 0 && a.Pointer() == b.Pointer() {
				found = append(found, path)
				return
			}
			if a.Kind() == reflect.Pointer && !a.IsNil() {
				walk(path, a.Elem(), b.Elem())
			}
			for i := 0; a.Kind() == reflect.Slice && i < a.Len(); i++ {
				walk(path+"[]", a.Index(i), b.Index(i))
			}
		}
	}
	walk("", reflect.ValueOf(r).Elem(), reflect.ValueOf(c).Elem())
	for _, p := range found {
		if !under(shared, p) {
			t.Errorf("%s is shared between a replica and its clone", p)
		}
	}
	for _, p := range shared {
		if !under(found, p) {
			t.Errorf("%s is said to be shared, and is not", p)
		}
	}
}

// TestFingerprintHasEverything changes every field of a replica, one at a time: the
// fingerprint must change, or the field be named here with the reason.
func TestFingerprintHasEverything(t *testing.T) {
	without := []string{
		"cfg",                                              // equal by definition
		"mut",                                              // part of the configuration
		"why",                                              // for operators
		"out",                                              // empty between events, and only the number of these four is looked at
		"active[]",                                         // follows from the configurations in the log, the commit index and the decree
		"log.tailBytes", "log.dropped", "log.droppedBytes", // when memory is let go of
		"view.Group", "view.Self", "view.Configurations[]",
	}
	versions := []string{"active[].Version", "view.Configurations[].Version"} // stand for the whole
	r := filled(t)
	was := r.AppendFingerprint(nil)
	fields := 0
	check := func(path string) {
		fields++
		same := bytes.Equal(was, r.AppendFingerprint(nil))
		left := under(without, path) && !slices.Contains(versions, path)
		if same && !left {
			t.Errorf("the fingerprint does not show %s", path)
		}
		if !same && left {
			t.Errorf("the fingerprint shows %s", path)
		}
	}
	change(t, "", reflect.ValueOf(r).Elem(), check)
	if fields < 200 {
		t.Errorf("only %d fields were looked at", fields)
	}
}

// change changes what is in a value, one leaf at a time, and calls check meanwhile.
func change(t *testing.T, path string, v reflect.Value, check func(path string)) {
	if path == "cfg" {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			change(t, strings.TrimPrefix(path+"."+v.Type().Field(i).Name, "."), open(v.Field(i)), check)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			change(t, path, v.Elem(), check)
		}
	case reflect.Slice:
		if v.Len() == 0 {
			return
		}
		old := reflect.ValueOf(v.Interface())
		if v.Type() == reflect.TypeFor[partition.Record]() {
			v.Set(reflect.ValueOf(partition.NewRecord(partition.Header{Group: 9})))
			check(path)
			v.Set(old)
			return
		}
		v.Set(v.Slice(0, v.Len()-1))
		if !strings.HasSuffix(path, "[]") {
			check(path)
		}
		v.Set(old)
		for i := range v.Len() {
			change(t, path+"[]", v.Index(i), check)
		}
	case reflect.Interface, reflect.Func:
	default:
		old := reflect.ValueOf(v.Interface())
		bump(t, v, 1)
		check(path)
		v.Set(old)
	}
}

// TestFingerprintLeavesAttempts: what an attempt leaves behind counts for nothing
// once it is over, and the time at which something happened never does.
func TestFingerprintLeavesAttempts(t *testing.T) {
	r := filled(t)
	r.phase = following
	was := r.AppendFingerprint(nil)
	r.attempt.probed, r.attempt.target.Index, r.attempt.until = nil, 99, 0
	if !bytes.Equal(was, r.AppendFingerprint(nil)) {
		t.Error("an attempt that is over is in the fingerprint")
	}
	r.attempt.lock++
	if bytes.Equal(was, r.AppendFingerprint(nil)) {
		t.Error("a lock that is held is not in the fingerprint")
	}
}

// TestCloneGoesTheSameWay lets random schedules replace replicas by their clones:
// nothing changes, and times that are moved as a whole leave the fingerprint.
func TestCloneGoesTheSameWay(t *testing.T) {
	for seed := range uint64(20) {
		one, two := newPairOfWorlds(seed)
		for step := range 400 {
			one.run(one.knobs.netMin)
			two.run(two.knobs.netMin)
			for i, n := range two.nodes {
				if n.up && !n.paused {
					n.rep = n.rep.Clone(n, n.rep.cfg.Rand)
				}
				a, b := one.nodes[i].rep.AppendFingerprint(nil), n.rep.AppendFingerprint(nil)
				if !bytes.Equal(a, b) {
					t.Fatalf("seed %d step %d: replica %d and its clones have parted", seed, step, n.id)
				}
			}
		}
	}
}

// newPairOfWorlds returns two equal worlds with clients, of which the second
// begins an hour later.
func newPairOfWorlds(seed uint64) (*world, *world) {
	begin := func(at partition.Time) *world {
		k := calm()
		k.netMax, k.diskMax = 3*k.netMin, 2*k.diskMin
		w := newWorld(seed, k)
		w.now += at
		w.start(members(3))
		rng := rand.New(rand.NewPCG(seed, 2))
		for id := range uint64(30) {
			op := &op{id: id + 1}
			w.after(partition.Time(rng.Int64N(int64(400*k.netMin))), func() {
				if m := w.master(); m != nil {
					w.check.write(m, op)
				}
			})
		}
		w.after(200*k.netMin, func() { w.node(1).crash() })
		w.after(260*k.netMin, func() { w.node(1).boots() })
		return w
	}
	return begin(0), begin(3600e9)
}
