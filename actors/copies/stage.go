package copies

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"syscall"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/store"
)

// inFile is a file as far as it is here. have bytes of it were written, whose
// checksum is sum; whole: it was checked and is on disk.
type inFile struct {
	store.File
	have    int64
	sum     uint32
	whole   bool
	damaged int // how often it came damaged
}

// openFile is the file that is being written.
type openFile struct {
	file  *os.File
	index uint32
}

func (o *openFile) close() {
	if o.file != nil {
		_ = o.file.Close() // what counts was synced, anything else is not believed
		o.file = nil
	}
}

// begin prepares the directory for an offer. Of an earlier one the files stay
// that are the same: a table never changes once it has its name. Those that are
// on this node from elsewhere are taken, too.
func (f *fetch) begin(ctx context.Context, o offer, total int64) error {
	if f.name == "" {
		name := f.c.name(incoming, f.r.Group)
		if err := f.c.root.Mkdir(name, 0o700); err != nil {
			return local("make a directory", err)
		}
		f.name = name
	}
	before := make(map[string]inFile, len(f.files))
	for _, x := range f.files {
		before[x.Name] = x
	}
	files := make([]inFile, len(o.manifest.Files))
	done := int64(0)
	for i, want := range o.manifest.Files {
		files[i] = inFile{File: want}
		if x, ok := before[want.Name]; ok && x.whole && x.File == want {
			files[i] = x
			done += x.Bytes
			delete(before, want.Name)
		}
	}
	for name := range before {
		if err := f.c.root.Remove(path.Join(f.name, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return local("remove "+name, err)
		}
	}
	for i := range files {
		if x := &files[i]; !x.whole {
			there, err := f.salvage(ctx, x)
			if err != nil {
				return err
			}
			if there {
				x.have, x.sum, x.whole = x.Bytes, x.CRC32C, true
				done += x.Bytes
			}
		}
	}
	if f.old != "" {
		if err := f.c.root.RemoveAll(f.old); err != nil {
			return local("remove what an earlier copy left", err)
		}
		f.old = ""
	}
	if err := f.reserve(total - done); err != nil {
		return err
	}
	f.offer, f.files = o, files
	f.t.total.Store(total)
	f.t.done.Store(done)
	return f.makeEmpty()
}

// reserve takes n bytes of the disk for this fetch, if that leaves enough for
// everything else. What other fetches have left makes room for it.
func (f *fetch) reserve(n int64) error {
	err := f.tryReserve(n)
	if partition.CodeOf(err) == partition.CodeNoSpace && f.c.forgetAll() {
		return f.tryReserve(n)
	}
	return err
}

func (f *fetch) tryReserve(n int64) error {
	free, total, err := f.c.cfg.Free()
	if err != nil {
		return local("ask for free space", err)
	}
	leave := f.c.cfg.MinFreeBytes
	if leave <= 0 {
		leave = total / 20
	}
	c := f.c
	c.mu.Lock()
	defer c.mu.Unlock()
	others := c.reserved - f.reserved
	if total > 0 && free-others-n < leave {
		return &localError{&partition.Error{
			Code: partition.CodeNoSpace,
			Why:  fmt.Sprintf("a copy of %d bytes; %d are free, %d of them promised to other copies, %d must stay free", n, free, others, leave),
			Next: "free space on the disk, or place the replica on another node",
		}}
	}
	c.reserved += n - f.reserved
	f.reserved = n
	return nil
}

// wrote gives back what is reserved for n bytes, which are in use now.
func (f *fetch) wrote(n int64) {
	f.c.mu.Lock()
	n = min(n, f.reserved)
	f.reserved -= n
	f.c.reserved -= n
	f.c.mu.Unlock()
}

// makeEmpty makes the files that have no bytes.
func (f *fetch) makeEmpty() error {
	for i := range f.files {
		x := &f.files[i]
		if x.Bytes > 0 || x.whole {
			continue
		}
		file, err := f.create(x)
		if err == nil {
			err = errors.Join(file.Sync(), file.Close())
		}
		if err != nil {
			return local("make "+x.Name, err)
		}
		x.whole = true
	}
	return nil
}

func (f *fetch) create(x *inFile) (*os.File, error) {
	return f.c.root.OpenFile(path.Join(f.name, x.Name), os.O_WRONLY|os.O_CREATE, 0o600)
}

// wants are the parts that are missing.
func (f *fetch) wants() []want {
	var all []want
	for i := range f.files {
		if x := &f.files[i]; !x.whole {
			all = append(all, want{file: uint32(i), from: x.have})
		}
	}
	return all
}

// chunk writes what came of one file.
func (f *fetch) chunk(file uint32, off int64, data []byte) error {
	if int64(file) >= int64(len(f.files)) {
		return foul("bytes of file %d of %d", file, len(f.files))
	}
	x := &f.files[file]
	if x.whole || off != x.have || int64(len(data)) > x.Bytes-off {
		return foul("%d bytes of file %s at %d, it has %d of %d", len(data), x.Name, off, x.have, x.Bytes)
	}
	if f.current.file == nil || f.current.index != file {
		f.current.close()
		o, err := f.create(x)
		if err != nil {
			return local("open "+x.Name, err)
		}
		f.current = openFile{file: o, index: file}
	}
	if _, err := f.current.file.WriteAt(data, off); err != nil {
		return local("write "+x.Name, err)
	}
	n := int64(len(data))
	x.have += n
	x.sum = update(x.sum, data)
	f.got += n
	f.wrote(n)
	f.t.done.Add(n)
	f.c.count.received.Add(n)
	if x.have == x.Bytes {
		return f.complete(x)
	}
	if f.unasked += n; f.unasked < spaceBytes {
		return nil
	}
	f.unasked = 0
	return f.reserve(f.reserved) // others may have filled the disk meanwhile
}

// complete checks a file that has come to its end and makes it durable. A
// damaged one begins anew.
func (f *fetch) complete(x *inFile) error {
	if x.sum != x.CRC32C {
		f.c.count.damaged.Add(1)
		f.c.cfg.Logger.Warn("file came damaged", "group", f.r.Group, "peer", f.r.From, "file", x.Name)
		if x.damaged++; x.damaged >= maxDamaged {
			return &localError{partition.Errorf(partition.CodeCorrupt, "file %s came damaged %d times", x.Name, x.damaged)}
		}
		f.t.done.Add(-x.have)
		f.wrote(-x.have) // it will be counted once more
		x.have, x.sum = 0, 0
		return nil
	}
	if err := f.current.file.Sync(); err != nil {
		return local("sync "+x.Name, err)
	}
	f.current.close()
	x.whole = true
	return nil
}

// syncDirs makes the names of the files durable, and that of their directory.
func (f *fetch) syncDirs() error {
	for _, name := range []string{f.name, "."} {
		d, err := f.c.root.Open(name)
		if err == nil {
			err = errors.Join(d.Sync(), d.Close())
		}
		if err != nil {
			return local("sync the copy", err)
		}
	}
	return nil
}

// local is an error of this node's disk.
func local(what string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &localError{&partition.Error{
			Code: partition.CodeNoSpace, Why: what + ": " + err.Error(), Next: "free space on the disk",
		}}
	}
	return &localError{fmt.Errorf("%s: %w", what, err)}
}
