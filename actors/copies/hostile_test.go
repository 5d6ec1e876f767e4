package copies

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/store"
)

// goodOffer is an offer as an honest source makes it.
func goodOffer() offer {
	return offer{
		checkpoint: checkpointID{1, 2, 3},
		manifest: store.Manifest{Group: 7, Generation: 2, Index: 40, Files: []store.File{
			{Name: "000004.sst", Bytes: 5, CRC32C: 99}, {Name: "MANIFEST-000001", Bytes: 7, CRC32C: 98}, {Name: "marker.format-version.000001.024"},
		}},
		base: baseAt(7, 40),
	}
}

func TestMessagesRoundTrip(t *testing.T) {
	o := goodOffer()
	got, err := decodeOffer(o.encode())
	if err != nil || !reflect.DeepEqual(got, o) {
		t.Errorf("%+v, %v", got, err)
	}
	h := hello{group: 7, min: 9, checkpoint: checkpointID{5}}
	if got, err := decodeHello(h.encode()); err != nil || got != h {
		t.Errorf("%+v, %v", got, err)
	}
	wants := []want{{0, 0}, {1, 6}}
	if got, err := decodeWants(encodeWants(wants), o.manifest.Files); err != nil || !reflect.DeepEqual(got, wants) {
		t.Errorf("%+v, %v", got, err)
	}
	no := &partition.Error{Code: partition.CodeBusy, Why: "why", Next: "next"}
	var back *refusal
	if err := decodeRefusal(encodeRefusal(no)); !errors.As(err, &back) || *back.err != *no {
		t.Errorf("%v", err)
	}
	long := errors.New(strings.Repeat("x", 1<<20))
	if b := encodeRefusal(long); len(b) > kindRefuse.limit() || partition.CodeOf(decodeRefusal(b)) != partition.CodeInternal {
		t.Errorf("%d bytes", len(b))
	}
}

// hostileOffers spoil an offer.
func hostileOffers() map[string]func(*offer) {
	file := func(name string, n int64, crc uint32) func(*offer) {
		return func(o *offer) { o.manifest.Files[0] = store.File{Name: name, Bytes: n, CRC32C: crc} }
	}
	otherGroup := baseAt(8, 40).Configuration
	noConfig := partition.NewRecord(partition.Header{Group: 7, Index: 1, Kind: partition.KindCommand}, []byte("x"))
	noMembers := partition.NewRecord(partition.Header{Group: 7, Index: 1, Kind: partition.KindMember}, []byte("x"))
	rotten := bytes.Clone(baseAt(7, 40).Configuration)
	rotten[len(rotten)-1] ^= 1
	return map[string]func(*offer){
		"a way out":            file("../../x", 1, 1),
		"an absolute name":     file("/etc/passwd", 1, 1),
		"a directory":          file("a/b", 1, 1),
		"the other slash":      file(`a\b`, 1, 1),
		"dots":                 file("..", 1, 1),
		"a hidden file":        file(".x", 1, 1),
		"no name":              file("", 1, 1),
		"a zero byte":          file("a\x00b", 1, 1),
		"not ASCII":            file("ä", 1, 1),
		"a long name":          file(strings.Repeat("a", maxNameBytes+1), 1, 1),
		"the same twice":       file("MANIFEST-000001", 1, 1),
		"less than nothing":    file("x", -1, 1),
		"far too much":         file("x", math.MaxInt64, 1),
		"more than fits":       file("x", 1<<50, 1),
		"nothing that sums up": file("x", 0, 1),
		"no files":             func(o *offer) { o.manifest.Files = nil },
		"no checkpoint":        func(o *offer) { o.checkpoint = checkpointID{} },
		"another group":        func(o *offer) { o.manifest.Group = 8; o.base.Configuration = otherGroup },
		"a foreign config":     func(o *offer) { o.base.Configuration = otherGroup },
		"a command":            func(o *offer) { o.base.Configuration = noConfig },
		"no membership":        func(o *offer) { o.base.Configuration = noMembers },
		"a rotten record":      func(o *offer) { o.base.Configuration = rotten },
		"no record":            func(o *offer) { o.base.Configuration = nil },
		"too early":            func(o *offer) { o.base.Index = 29 },
		"index 0":              func(o *offer) { o.base.Index = 0 },
		"index of all ones":    func(o *offer) { o.base.Index = math.MaxUint64 },
		"a later config": func(o *offer) {
			o.base.Configuration = partition.NewRecord(partition.Header{Group: 7, Index: 41, Kind: partition.KindMember}, o.base.Configuration.Payload())
		},
	}
}

// TestHostileOffers: none of these leaves the stage, takes memory or space, or
// is taken for a copy.
func TestHostileOffers(t *testing.T) {
	for name, spoil := range hostileOffers() {
		t.Run(name, func(t *testing.T) {
			o := goodOffer()
			spoil(&o)
			dir := t.TempDir()
			served := make(chan struct{})
			c, err := New(Config{Dir: filepath.Join(dir, "data"), Host: &node{}, Attempts: 1, Open: func(context.Context, partition.NodeID) (Stream, error) {
				x, y := newPipe()
				go func() {
					defer close(served)
					defer y.Close()
					v := wire{s: y}
					if _, _, err := v.receive(kindHello); err != nil {
						t.Error(err)
					}
					if err := v.send(kindOffer, o.encode(), nil); err != nil {
						t.Error(err)
					}
					if _, body, err := v.receive(kindWant, kindDone); err == nil {
						t.Errorf("it was taken: %x", body)
					}
				}()
				return x, nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			p, err := c.Fetch(t.Context(), Request{Group: 7, From: "a", MinIndex: 30})
			if p != nil || partition.CodeOf(err) == partition.CodeInternal || err == nil {
				t.Errorf("%+v, %v", p, err)
			}
			<-served
			var all []string
			_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, _ error) error {
				all = append(all, path)
				return nil
			})
			if len(all) != 3 {
				t.Errorf("on the disk: %v", all)
			}
		})
	}
}

// TestHostileChunks: bytes that were not asked for go nowhere.
func TestHostileChunks(t *testing.T) {
	chunk := func(file uint32, off int64, n int) []byte {
		return append(encodeChunk(nil, file, off), make([]byte, n)...)
	}
	for name, x := range map[string]struct {
		kind kind
		body []byte
	}{
		"of no file":             {kindChunk, chunk(3, 0, 1)},
		"of file -1":             {kindChunk, chunk(math.MaxUint32, 0, 1)},
		"further on":             {kindChunk, chunk(0, 1, 1)},
		"before the file":        {kindChunk, chunk(0, -1, 1)},
		"more than the file":     {kindChunk, chunk(0, 0, 6)},
		"of an empty file":       {kindChunk, chunk(2, 0, 1)},
		"nothing":                {kindChunk, chunk(0, 0, 0)},
		"less than a head":       {kindChunk, make([]byte, 3)},
		"the end":                {kindEnd, nil},
		"another offer":          {kindOffer, nil},
		"a wish":                 {kindWant, make([]byte, wantBytes)},
		"an unknown kind":        {99, nil},
		"a refusal without text": {kindRefuse, []byte{1}},
		"a refusal of nothing":   {kindRefuse, make([]byte, 6)},
	} {
		o := goodOffer()
		dir := t.TempDir()
		attempts := 0
		c, err := New(Config{Dir: dir, Host: &node{}, Attempts: 1, Open: func(context.Context, partition.NodeID) (Stream, error) {
			attempts++
			x1, y := newPipe()
			go func() {
				defer y.Close()
				v := wire{s: y}
				_, _, _ = v.receive(kindHello)
				_ = v.send(kindOffer, o.encode(), nil)
				_, _, _ = v.receive(kindWant)
				_ = v.send(x.kind, x.body, nil)
				_, _, _ = v.receive(kindWant)
			}()
			return x1, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Fetch(t.Context(), Request{Group: 7, From: "a"})
		if p != nil || !errors.Is(err, partition.ErrCorrupt) || attempts != 1 {
			t.Errorf("%s: %v, %v after %d attempts", name, p, err, attempts)
		}
		if c.Status().Damaged != 1 {
			t.Errorf("%s: %+v", name, c.Status())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestHostileFetchers: a source answers what it is asked amiss with a refusal,
// and goes on serving others.
func TestHostileFetchers(t *testing.T) {
	w := newWorld(t)
	a, b := w.add("a", nil), w.add("b", nil)
	fill(t, a.store(t, 7, 1), 1, 50, 1000)
	h := hello{group: 7}
	good := h.encode()
	newer := bytes.Clone(good)
	newer[4]++
	none := hello{}
	wants := func(all ...want) []byte { return encodeWants(all) }
	for name, x := range map[string]struct {
		hello []byte
		wants []byte // after an offer, if not nil
		code  partition.Code
	}{
		"no request":         {[]byte("GET / HTTP/1.1"), nil, partition.CodeCorrupt},
		"nothing":            {nil, nil, partition.CodeCorrupt},
		"a newer version":    {newer, nil, partition.CodeNewerFormat},
		"no group":           {none.encode(), nil, partition.CodeCorrupt},
		"half a request":     {good[:20], nil, partition.CodeCorrupt},
		"no wishes":          {good, []byte{}, partition.CodeCorrupt},
		"half a wish":        {good, make([]byte, 5), partition.CodeCorrupt},
		"twice":              {good, wants(want{0, 0}, want{0, 0}), partition.CodeCorrupt},
		"backwards":          {good, wants(want{1, 0}, want{0, 0}), partition.CodeCorrupt},
		"of no file":         {good, wants(want{math.MaxUint32, 0}), partition.CodeCorrupt},
		"behind the end":     {good, wants(want{0, 1 << 40}), partition.CodeCorrupt},
		"before the file":    {good, wants(want{0, -1}), partition.CodeCorrupt},
		"a wish and no more": {good, nil, 0},
	} {
		p, q := newPipe()
		served := make(chan struct{})
		go func() {
			a.copies.Serve("b", q)
			close(served)
		}()
		v := wire{s: p}
		if err := v.send(kindHello, x.hello, nil); err != nil {
			t.Fatal(err)
		}
		if x.wants != nil {
			if k, _, err := v.receive(kindOffer, kindRefuse); k != kindOffer || err != nil {
				t.Fatalf("%s: %v %v", name, k, err)
			}
			if err := v.send(kindWant, x.wants, nil); err != nil {
				t.Fatal(err)
			}
		}
		if x.code != 0 {
			k, body, err := v.receive(kindChunk, kindRefuse)
			if k != kindRefuse || err != nil || partition.CodeOf(decodeRefusal(body)) != x.code {
				t.Errorf("%s: %d %q %v", name, k, body, err)
			}
		}
		_ = p.Close()
		<-served
	}
	if _, err := w.fetch(b, Request{Group: 7, From: "a"}); err != nil {
		t.Error(err)
	}
}

// bounded fails if f takes much more memory than there are bytes.
func bounded(t *testing.T, n int, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > uint64(64*n+2*growBytes+64<<10) {
		t.Fatalf("%d bytes of input took %d of memory", n, took)
	}
}

func FuzzOffer(f *testing.F) {
	o := goodOffer()
	f.Add(o.encode())
	f.Add(o.encode()[:50])
	f.Fuzz(func(t *testing.T, b []byte) {
		bounded(t, len(b), func() {
			o, err := decodeOffer(b)
			if err != nil {
				return
			}
			if !bytes.Equal(o.encode(), b) {
				t.Fatalf("%+v is encoded in another way", o)
			}
			for _, x := range o.manifest.Files {
				if filepath.Base(x.Name) != x.Name || x.Name[0] == '.' || x.Bytes < 0 {
					t.Fatalf("%+v", x)
				}
			}
		})
	})
}

// FuzzMessage feeds a fetcher's side of a stream, and then what it yields to
// every decoder.
func FuzzMessage(f *testing.F) {
	for _, k := range []kind{kindHello, kindOffer, kindWant, kindChunk, kindRefuse, kindEnd} {
		x, y := newPipe()
		v := wire{s: x}
		o, h := goodOffer(), hello{group: 7}
		body := map[kind][]byte{
			kindHello: h.encode(), kindOffer: o.encode(), kindWant: encodeWants([]want{{0, 1}}), kindChunk: encodeChunk(nil, 0, 0),
			kindRefuse: encodeRefusal(partition.ErrBusy),
		}[k]
		if err := v.send(k, body, nil); err != nil {
			f.Fatal(err)
		}
		b := make([]byte, 1<<16)
		n, _ := y.Read(b)
		f.Add(b[:n])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		bounded(t, len(b), func() {
			x, y := newPipe()
			_, _ = x.out.buf.Write(b)
			x.out.end(false)
			v := wire{s: y}
			for {
				k, body, err := v.receive(kindHello, kindWait, kindOffer, kindWant, kindChunk, kindEnd, kindDone, kindRefuse)
				if err != nil {
					return
				}
				if len(body) > k.limit() {
					t.Fatalf("%d bytes of kind %d", len(body), k)
				}
				if _, err := decodeHello(body); err == nil && len(body) != 40 {
					t.Fatal("a request of another size")
				}
				_, _ = decodeWants(body, goodOffer().manifest.Files)
				_, _, _, _ = decodeChunk(body)
				if decodeRefusal(body) == nil {
					t.Fatal("a refusal that is none")
				}
			}
		})
	})
}
