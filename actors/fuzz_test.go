package actors

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/cluster/detector"
	"pando.dev/pando/partition"
)

// hostileCalls are bodies that no node of ours sends, one row each: the first
// byte names the call.
func hostileCalls() map[string][]byte {
	rows := map[string][]byte{
		"nothing": nil, "call 0": {0}, "call 99": {99, 1, 2}, "call 255": bytes.Repeat([]byte{255}, 1000),
		"reports of too many":      append([]byte{callReports}, "["+strings.Repeat(`"g1",`, askGroups)+`"g1"]`...),
		"surveys of too many":      append([]byte{callSurvey}, "["+strings.Repeat(`"g1",`, MaxRecover)+`"g1"]`...),
		"a drain of another kind":  append([]byte{callDrain}, `{"what":"explode"}`...),
		"a hosting of no group":    append([]byte{callHost}, `{"replica":3}`...),
		"a hosting of no replica":  append([]byte{callHost}, `{"group":"g1"}`...),
		"a decree of nobody":       append([]byte{callDecree}, `{"group":"g1","replica":1}`...),
		"a decree of garbage":      append([]byte{callDecree}, `{"group":"g1","replica":1,"membership":"AAAA"}`...),
		"a change of no group":     append([]byte{callChange}, `{}`...),
		"a change of a stranger":   append([]byte{callChange}, `{"group":"g999999","kind":"add","node":"x"}`...),
		"a sample of another":      append([]byte{callSample}, `{"node":"n9"}`...),
		"a sample of much":         append([]byte{callSample}, `{"node":"n1","peers":[`+strings.Repeat("{},", detector.MaxPeers)+`{}]}`...),
		"members of too many":      append([]byte{callMembers}, `{"groups":[`+strings.Repeat(`"g1",`, askGroups)+`"g1"]}`...),
		"control: nothing":         {callControl},
		"control: an array bomb":   {callControl, 1, 16, 0xdd, 0xff, 0xff, 0xff, 0xff},
		"control: a binary bomb":   {callControl, 1, 16, 0xc6, 0xff, 0xff, 0xff, 0xff},
		"control: nested":          append([]byte{callControl, 1, 16}, bytes.Repeat([]byte{0x91}, 100_000)...),
		"control: a newer program": {callControl, 99, 16, 0x90},
	}
	for name, kind := range map[string]byte{"index": callIndex, "reports": callReports, "host": callHost, "members": callMembers,
		"drain": callDrain, "survey": callSurvey, "decree": callDecree, "change": callChange, "sample": callSample} {
		for what, body := range map[string]string{
			"nothing": "", "garbage": "\x00\xff\xfe garbage", "cut short": `{"group":"g1`, "a number": "7e999", "a string": `"x"`,
			"nested": strings.Repeat("[", 50_000), "nested objects": strings.Repeat(`{"a":`, 50_000), "wrong types": `{"group":[1],"replica":"x","groups":{},"what":7}`,
			"negative": `{"group":-1,"replica":-1,"groups":[-1]}`, "huge numbers": `{"group":"g99999999999999999999999","replica":99999999999,"groups":["g99999999999999999999999"]}`,
		} {
			rows[name+": "+what] = append([]byte{kind}, body...)
		}
	}
	return rows
}

// TestHostileCalls: whatever another node calls with, it gets an error with a
// code, nothing happens to this one, and it costs little memory.
func TestHostileCalls(t *testing.T) {
	t.Parallel()
	n := startSingle(t, single(t, t.TempDir())).nodes[0]
	eventually(t, "ready", n.Ready)
	rows := hostileCalls()
	for name, body := range rows {
		ctx, cancel := contextWithin(t, 2*time.Second)
		b := n.onCall(ctx, "evil", body)
		cancel()
		if len(body) > 0 && body[0] == callControl {
			continue // its answers have their own form, see its own table
		}
		if len(b) < 3 || b[0] != answerError && !bytes.Contains(b, []byte(`"err":{"Code":`)) {
			t.Errorf("%s: answered %.100q", name, b)
		}
	}
	t.Logf("%d rows", len(rows))
	if w := n.service.now(); w.Drain != 0 {
		t.Errorf("the node is drained: %+v", w)
	}
	if err := n.Ready(); err != nil {
		t.Error(err)
	}
}

// FuzzCall feeds what other nodes call with to a node that runs alone.
func FuzzCall(f *testing.F) {
	for _, body := range hostileCalls() {
		if len(body) < 4096 {
			f.Add(body)
		}
	}
	f.Add(append([]byte{callReports}, `["g1","g2"]`...))
	f.Add(append([]byte{callMembers}, `{"groups":["g1"]}`...))
	f.Add(append([]byte{callChange}, `{"group":"g1","kind":"transfer","node":"n2"}`...))
	cfg := single(f, f.TempDir())
	n, err := Start(f.Context(), cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := n.Stop(ctx); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, body []byte) {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if b := n.onCall(ctx, "evil", body); len(b) == 0 {
			t.Fatalf("%x: no answer", body)
		}
	})
}

// FuzzNodeFiles reads the files in which a node keeps its catalog, its suspects
// and its word, with their checksums made right, so that what lies behind them
// is reached.
func FuzzNodeFiles(f *testing.F) {
	f.Add([]byte(`{"replicas":{"1":2},"forgetful":true}`))
	f.Add([]byte(`{"replicas":null}`))
	f.Add([]byte(`{"seq":3,"drain":2,"reason":"x"}`))
	b := make([]byte, 8)
	for _, p := range control.EncodeCatalog(&control.Catalog{}) {
		b = append(append(b, byte(len(p)), byte(len(p)>>8), 0, 0), p...)
	}
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		seal := func(name, magic string) string {
			path := filepath.Join(dir, name)
			sum := partition.Checksum(b)
			if err := os.WriteFile(path, slices.Concat([]byte(magic), []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)}, b), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, cat, err := readCatalog(seal(catalogFile, catalogMagic)); err == nil {
			control.EncodeCatalog(cat) // it can be written again
		}
		seal(suspectFile, suspectMagic)
		if s, err := openSuspects(dir); err == nil {
			if err := s.add(map[partition.GroupID]partition.ReplicaID{7: 3}, false); err != nil || !s.has(7, 3) {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, drainFile), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := openService(dir); err == nil && !json.Valid(b) {
			t.Fatalf("%q is the word %+v", b, s.now())
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20+200*uint64(len(b)) {
			t.Fatalf("%d bytes of memory for %d", n, len(b))
		}
	})
}
