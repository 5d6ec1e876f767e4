package copies

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/store"
)

// kind is what a message of a copy says.
type kind uint8

const (
	kindHello  kind = 1 + iota // fetcher: what it wants
	kindWait                   // source: not yet
	kindOffer                  // source: the copy's files
	kindWant                   // fetcher: send these parts
	kindChunk                  // source: bytes of one file
	kindEnd                    // source: that was all that you wanted
	kindDone                   // fetcher: everything is here
	kindRefuse                 // source: no, and why
)

const (
	helloMagic   = 0x59_50_43_50 // "PCPY"
	helloVersion = 1

	// frameHead is the size of a message without its body:
	//
	//	kind u8 | 0 [3] | body bytes u32 | crc32c u32 of the eight bytes before and the body
	frameHead = 12
	chunkHead = 12
	// chunkBytes is how much of a file one message carries; with its heads it
	// fits into one frame of a link.
	chunkBytes = 256<<10 - frameHead - chunkHead
	wantBytes  = 12
	idBytes    = 16

	// maxFiles and maxNameBytes bound a manifest: a store of 1 TB has some
	// 20,000 files.
	maxFiles     = 65_536
	maxNameBytes = 64
	// maxRefuseBytes bounds each of the two texts of a refusal.
	maxRefuseBytes = 1024
	// growBytes is what a receiver takes memory for before it sees the bytes.
	growBytes = 256 << 10
)

// le is the byte order of everything on the wire.
var le = binary.LittleEndian

// limit is how large the body of a message may be.
func (k kind) limit() int {
	switch k {
	case kindHello:
		return 64
	case kindWait:
		return 16
	case kindOffer:
		return 128 + partition.RecordHeaderBytes + partition.MaxPayloadBytes + maxFiles*(13+maxNameBytes)
	case kindWant:
		return maxFiles * wantBytes
	case kindChunk:
		return chunkHead + chunkBytes
	case kindRefuse:
		return 6 + 2*maxRefuseBytes
	}
	return 0
}

// wire reads or writes messages, one at a time.
type wire struct {
	s    Stream
	out  []byte
	head [frameHead]byte
	in   []byte
	// stall, if not 0, is how long one message may take; then the stream is
	// closed.
	stall time.Duration
	watch *time.Timer
}

// limit closes the stream unless the function that it returns is called in
// time.
func (w *wire) limit() (stop func() bool) {
	switch {
	case w.stall == 0:
		return func() bool { return true }
	case w.watch == nil:
		w.watch = time.AfterFunc(w.stall, func() { _ = w.s.Close() })
	default:
		w.watch.Reset(w.stall)
	}
	return w.watch.Stop
}

// send writes one message, whose body may come in two parts.
func (w *wire) send(k kind, body, more []byte) error {
	defer w.limit()()
	w.out = append(w.out[:0], byte(k), 0, 0, 0)
	w.out = le.AppendUint32(w.out, uint32(len(body)+len(more)))
	w.out = append(w.out, 0, 0, 0, 0)
	w.out = append(append(w.out, body...), more...)
	le.PutUint32(w.out[8:], sumFrame(w.out, w.out[frameHead:]))
	if _, err := w.s.Write(w.out); err != nil {
		return fmt.Errorf("send to the other node: %w", err)
	}
	return nil
}

func sumFrame(head, body []byte) uint32 {
	return update(partition.Checksum(head[:8]), body)
}

// receive reads one message, which must be of one of the kinds given. The body
// is valid until the next call.
func (w *wire) receive(kinds ...kind) (kind, []byte, error) {
	defer w.limit()()
	if _, err := io.ReadFull(w.s, w.head[:]); err != nil {
		return 0, nil, fmt.Errorf("receive from the other node: %w", err)
	}
	k, n := kind(w.head[0]), int64(le.Uint32(w.head[4:]))
	known := false
	for _, want := range kinds {
		known = known || k == want
	}
	switch {
	case !known || w.head[1]|w.head[2]|w.head[3] != 0:
		return 0, nil, foul("a message of kind %d", k)
	case n > int64(k.limit()):
		return 0, nil, foul("a message of kind %d with %d bytes, limit %d", k, n, k.limit())
	}
	if err := w.body(int(n)); err != nil {
		return 0, nil, fmt.Errorf("receive from the other node: %w", err)
	}
	if sumFrame(w.head[:], w.in) != le.Uint32(w.head[8:]) {
		return 0, nil, foul("a message of kind %d fails its checksum", k)
	}
	return k, w.in, nil
}

// body reads n bytes, taking memory as they come and not as they are announced.
func (w *wire) body(n int) error {
	w.in = w.in[:0]
	for len(w.in) < n {
		some := min(n-len(w.in), max(growBytes, len(w.in)))
		at := len(w.in)
		if cap(w.in) < at+some {
			w.in = append(make([]byte, 0, at+some), w.in...)
		}
		w.in = w.in[:at+some]
		if _, err := io.ReadFull(w.s, w.in[at:]); err != nil {
			return err
		}
	}
	return nil
}

// checkpointID names one checkpoint of one source; zero: any new one.
type checkpointID [idBytes]byte

// hello opens a transfer.
type hello struct {
	group      partition.GroupID
	min        partition.Index
	checkpoint checkpointID // to go on with
}

func (h *hello) encode() []byte {
	b := le.AppendUint32(nil, helloMagic)
	b = le.AppendUint32(b, helloVersion)
	b = le.AppendUint64(b, uint64(h.group))
	b = le.AppendUint64(b, uint64(h.min))
	return append(b, h.checkpoint[:]...)
}

func decodeHello(b []byte) (h hello, err error) {
	if len(b) < 8 || le.Uint32(b) != helloMagic {
		return h, foul("no request for a copy")
	}
	if v := le.Uint32(b[4:]); v != helloVersion {
		return h, &partition.Error{
			Code: partition.CodeNewerFormat, Why: fmt.Sprintf("a request in version %d, this program knows %d", v, helloVersion),
			Next: "let the nodes run the same version",
		}
	}
	if len(b) != 24+idBytes {
		return h, foul("a request of %d bytes", len(b))
	}
	h.group, h.min = partition.GroupID(le.Uint64(b[8:])), partition.Index(le.Uint64(b[16:]))
	copy(h.checkpoint[:], b[24:])
	if h.group == 0 {
		return h, foul("a request for no group")
	}
	return h, nil
}

// What a source that has no offer yet is waiting for.
const (
	waitsTurn  = 1 // of so many copies that it sends at once
	waitsState = 2 // a checkpoint that is being made
)

// encodeWait lays out as what u8 | copies u8; sources of before send nothing.
func encodeWait(what byte, copies int) []byte { return []byte{what, byte(min(copies, 255))} }

// decodeWait says what a node's copy waits for, if it told.
func decodeWait(b []byte, from partition.NodeID) string {
	switch {
	case len(b) < 2:
		return ""
	case b[0] == waitsTurn:
		return fmt.Sprintf("waits for one of %d outgoing copies of node %s", b[1], from)
	case b[0] == waitsState:
		return fmt.Sprintf("waits for a checkpoint on node %s", from)
	}
	return ""
}

// offer is what a source can give.
type offer struct {
	checkpoint checkpointID
	manifest   store.Manifest
	base       Base
}

func (o *offer) encode() []byte {
	m := &o.manifest
	b := append([]byte(nil), o.checkpoint[:]...)
	b = le.AppendUint64(b, uint64(m.Group))
	b = le.AppendUint32(b, m.Generation)
	b = le.AppendUint64(b, uint64(o.base.Index))
	b = le.AppendUint64(b, uint64(o.base.Epoch))
	b = le.AppendUint32(b, o.base.Sum)
	b = le.AppendUint32(b, uint32(len(o.base.Configuration)))
	b = append(b, o.base.Configuration...)
	b = le.AppendUint32(b, uint32(len(m.Files)))
	for _, f := range m.Files {
		b = append(b, byte(len(f.Name)))
		b = append(b, f.Name...)
		b = le.AppendUint64(b, uint64(f.Bytes))
		b = le.AppendUint32(b, f.CRC32C)
	}
	return b
}

// parser cuts fields off a body. After the first that is not there ok is false.
type parser struct {
	b  []byte
	ok bool
}

func (p *parser) bytes(n uint64) []byte {
	if !p.ok || n > uint64(len(p.b)) {
		p.ok, p.b = false, nil
		return nil
	}
	out := p.b[:n:n]
	p.b = p.b[n:]
	return out
}

func (p *parser) u8() uint8 {
	if b := p.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (p *parser) u32() uint32 {
	if b := p.bytes(4); b != nil {
		return le.Uint32(b)
	}
	return 0
}

func (p *parser) u64() uint64 {
	if b := p.bytes(8); b != nil {
		return le.Uint64(b)
	}
	return 0
}

// decodeOffer reads an offer, and believes nothing: names are plain, each file
// is named once, sizes add up, the configuration is one of the group.
func decodeOffer(b []byte) (o offer, err error) {
	p := &parser{b: b, ok: true}
	copy(o.checkpoint[:], p.bytes(idBytes))
	m := &o.manifest
	m.Group, m.Generation = partition.GroupID(p.u64()), p.u32()
	o.base.Index, o.base.Epoch = partition.Index(p.u64()), partition.Epoch(p.u64())
	o.base.Sum = p.u32()
	m.Index = o.base.Index
	config := p.bytes(uint64(p.u32()))
	n := uint64(p.u32())
	if !p.ok || n > maxFiles || n*13 > uint64(len(p.b)) {
		return o, foul("an offer of %d bytes that names %d files", len(b), n)
	}
	if o.checkpoint == (checkpointID{}) || o.base.Index == 0 || o.base.Index > math.MaxInt64 {
		return o, foul("an offer without an index or a name")
	}
	if o.base.Configuration, err = checkConfiguration(config, m.Group, o.base.Index); err != nil {
		return o, err
	}
	m.Files = make([]store.File, 0, n)
	for range n {
		name := string(p.bytes(uint64(p.u8())))
		f := store.File{Name: name, Bytes: int64(p.u64()), CRC32C: p.u32()}
		m.Files = append(m.Files, f)
	}
	if !p.ok || len(p.b) != 0 {
		return o, foul("an offer of %d bytes that ends in the wrong place", len(b))
	}
	_, err = checkFiles(m.Files)
	return o, err
}

// checkConfiguration returns a copy of the record of a configuration.
func checkConfiguration(b []byte, g partition.GroupID, at partition.Index) (partition.Record, error) {
	rec, rest, err := partition.ParseRecord(b)
	switch {
	case err != nil:
		return nil, foul("an offer whose configuration cannot be read: %v", err)
	case len(rest) != 0 || rec.Group() != g || rec.Index() > at:
		return nil, foul("an offer with the record of another place")
	case rec.Kind() != partition.KindMember && rec.Kind() != partition.KindMode:
		return nil, foul("an offer with a record of kind %s for a configuration", rec.Kind())
	}
	if err := new(partition.Membership).UnmarshalBinary(rec.Payload()); err != nil {
		return nil, foul("an offer whose configuration cannot be read: %v", err)
	}
	return append(partition.Record(nil), rec...), nil
}

// checkFiles refuses a manifest that could write anywhere but into its own
// directory, and returns how many bytes it has.
func checkFiles(files []store.File) (total int64, err error) {
	if len(files) == 0 || len(files) > maxFiles {
		return 0, foul("a copy of %d files, limit %d", len(files), maxFiles)
	}
	seen := make(map[string]bool, len(files))
	for _, f := range files {
		switch {
		case !plainName(f.Name):
			return 0, foul("a file named %q", f.Name)
		case seen[f.Name]:
			return 0, foul("file %s is named twice", f.Name)
		case f.Bytes < 0 || total+f.Bytes < total:
			return 0, foul("file %s of %d bytes", f.Name, f.Bytes)
		case f.Bytes == 0 && f.CRC32C != 0:
			return 0, foul("file %s is empty and has checksum %08x", f.Name, f.CRC32C)
		}
		seen[f.Name] = true
		total += f.Bytes
	}
	return total, nil
}

// plainName reports whether a name is one that a state has: letters, digits and
// a few marks, never a path, never hidden.
func plainName(name string) bool {
	if name == "" || len(name) > maxNameBytes || name[0] == '.' {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// want is a part of a file that the fetcher does not have.
type want struct {
	file uint32
	from int64
}

func encodeWants(all []want) []byte {
	b := make([]byte, 0, wantBytes*len(all))
	for _, w := range all {
		b = le.AppendUint32(b, w.file)
		b = le.AppendUint64(b, uint64(w.from))
	}
	return b
}

// decodeWants reads what is wanted of files: each at most once, in order, and a
// part that it has.
func decodeWants(b []byte, files []store.File) ([]want, error) {
	if len(b) == 0 || len(b)%wantBytes != 0 {
		return nil, foul("wishes of %d bytes", len(b))
	}
	all := make([]want, 0, len(b)/wantBytes)
	last := int64(-1)
	for ; len(b) > 0; b = b[wantBytes:] {
		w := want{file: le.Uint32(b), from: int64(le.Uint64(b[4:]))}
		if int64(w.file) <= last || int64(w.file) >= int64(len(files)) || w.from < 0 || w.from >= files[w.file].Bytes {
			return nil, foul("wishes for file %d from %d on", w.file, w.from)
		}
		last = int64(w.file)
		all = append(all, w)
	}
	return all, nil
}

func encodeChunk(b []byte, file uint32, off int64) []byte {
	return le.AppendUint64(le.AppendUint32(b[:0], file), uint64(off))
}

// decodeChunk returns where the bytes of a chunk go.
func decodeChunk(b []byte) (file uint32, off int64, data []byte, err error) {
	if len(b) <= chunkHead {
		return 0, 0, nil, foul("a chunk of %d bytes", len(b))
	}
	return le.Uint32(b), int64(le.Uint64(b[4:])), b[chunkHead:], nil
}

// encodeRefusal carries the code and the words of err.
func encodeRefusal(err error) []byte {
	why, next := err.Error(), ""
	if e, ok := partitionError(err); ok {
		why, next = e.Why, e.Next
	}
	why, next = why[:min(len(why), maxRefuseBytes)], next[:min(len(next), maxRefuseBytes)]
	b := le.AppendUint16(nil, uint16(partition.CodeOf(err)))
	b = append(le.AppendUint16(b, uint16(len(why))), why...)
	return append(le.AppendUint16(b, uint16(len(next))), next...)
}

func decodeRefusal(b []byte) error {
	text := func(b []byte) (string, []byte, bool) {
		if len(b) < 2 || int(le.Uint16(b)) > len(b)-2 {
			return "", nil, false
		}
		n := 2 + int(le.Uint16(b))
		return string(b[2:n]), b[n:], true
	}
	if len(b) < 2 {
		return foul("a refusal of %d bytes", len(b))
	}
	code := partition.Code(le.Uint16(b))
	why, b, ok := text(b[2:])
	next, rest, ok2 := text(b)
	if !ok || !ok2 || len(rest) != 0 || code == 0 {
		return foul("a refusal that cannot be read")
	}
	return &refusal{&partition.Error{Code: code, Why: why, Next: next}}
}
