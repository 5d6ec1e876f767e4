package copies

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"pando.dev/pando/partition"
)

const (
	// incoming and kept begin the names of directories in the stage: of copies that
	// come in, and of the tables that those have left which did not come to an end.
	incoming = "in"
	kept     = "kept"
	// tableSuffix ends the names of the files that never change once they are
	// whole, so that they are worth looking at again.
	tableSuffix = ".sst"
	// sumBytes is how much of a file is read at once to sum it up.
	sumBytes = 256 << 10
)

// leftover is a directory of tables that is removed when its time is over. It is
// guarded by Copies.mu.
type leftover struct{ timer *time.Timer }

// salvage looks whether a table is on this node already: from an earlier fetch of
// the group that did not come to an end, or in a state of the group that is here.
// Whether it is the one, its length and its checksum tell. It reports whether the
// file is at its place, whole and on disk; if not, nothing is in its place.
func (f *fetch) salvage(ctx context.Context, x *inFile) (bool, error) {
	if x.Bytes == 0 || !strings.HasSuffix(x.Name, tableSuffix) {
		return false, nil
	}
	to := path.Join(f.name, x.Name)
	found := f.old != "" && f.c.root.Rename(path.Join(f.old, x.Name), to) == nil
	if !found && f.r.Have != "" { // a link, for whoever has it may remove it meanwhile
		found = os.Link(filepath.Join(f.r.Have, x.Name), filepath.Join(f.c.stage, f.name, x.Name)) == nil
	}
	if !found {
		return false, nil
	}
	same, err := f.same(ctx, to, x)
	if same && err == nil {
		f.c.count.reused.Add(x.Bytes)
		return true, nil
	}
	if stays := f.c.root.Remove(to); stays != nil {
		// It may be a table of a state in use, which what arrives must not be written into.
		return false, errors.Join(err, local("remove "+x.Name, stays))
	}
	return false, err
}

// same reads a file for its checksum, and makes it durable if it is the right one.
// One that cannot be read is not.
func (f *fetch) same(ctx context.Context, name string, x *inFile) (bool, error) {
	info, err := f.c.root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() != x.Bytes {
		return false, nil
	}
	file, err := f.c.root.Open(name)
	if err != nil {
		return false, nil
	}
	defer func() { _ = file.Close() }()
	sum, buf := uint32(0), make([]byte, min(sumBytes, x.Bytes))
	for {
		if err := f.c.reads.take(ctx, len(buf)); err != nil {
			return false, err
		}
		n, err := file.Read(buf)
		sum = update(sum, buf[:n])
		switch {
		case errors.Is(err, io.EOF) && sum == x.CRC32C:
			if err := file.Sync(); err != nil {
				return false, local("sync "+x.Name, err)
			}
			return true, nil
		case err != nil:
			return false, nil
		}
	}
}

// claim returns the directory with what an earlier fetch of the group has left, or
// an empty name. It is the caller's until it calls leave.
func (c *Copies) claim(g partition.GroupID) string {
	name := kept + "-" + g.String()
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.kept[name]
	if l == nil {
		return ""
	}
	l.timer.Stop()
	delete(c.kept, name)
	return name
}

// leave keeps the tables of a directory for the next fetch of a group, for
// Config.Keep, and removes everything else that is in it.
func (c *Copies) leave(name string, g string) error {
	to := kept + "-" + g
	if c.cfg.Keep < 0 {
		return errors.Join(c.root.RemoveAll(name), c.root.RemoveAll(to))
	}
	all, err := fs.ReadDir(c.root.FS(), name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, c.root.RemoveAll(name))
	}
	if name != to {
		for _, e := range all {
			if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), tableSuffix) {
				continue
			}
			if err := c.root.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return errors.Join(err, c.root.RemoveAll(name))
			}
			if err := c.root.Rename(path.Join(name, e.Name()), path.Join(to, e.Name())); err != nil {
				return errors.Join(err, c.root.RemoveAll(name))
			}
		}
		if err := c.root.RemoveAll(name); err != nil {
			return err
		}
	}
	if _, err := c.root.Lstat(to); err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.kept[to]; l != nil {
		l.timer.Stop()
	}
	l := &leftover{}
	l.timer = time.AfterFunc(c.cfg.Keep, func() { c.forget(to, l) })
	c.kept[to] = l
	return nil
}

// forgetAll removes whatever fetches have left, and reports whether there was any.
func (c *Copies) forgetAll() bool {
	c.mu.Lock()
	all := maps.Clone(c.kept)
	c.mu.Unlock()
	for name, l := range all { // in no order: each on its own
		l.timer.Stop()
		c.forget(name, l)
	}
	return len(all) > 0
}

// forget removes what nobody has asked for in time.
func (c *Copies) forget(name string, l *leftover) {
	c.mu.Lock()
	if c.closed || c.kept[name] != l {
		c.mu.Unlock()
		return
	}
	delete(c.kept, name)
	c.number++
	gone := fmt.Sprintf("gone-%s-%d", name, c.number)
	err := c.root.Rename(name, gone) // under the lock: then the name is free for others
	c.mu.Unlock()
	if err == nil {
		err = c.root.RemoveAll(gone)
	}
	if err != nil {
		c.cfg.Logger.Warn("what is left of a copy was not removed", "name", name, "err", err)
	}
}

// tidy removes from the stage what an earlier run left, but for the tables that
// had come in.
func (c *Copies) tidy() error {
	all, err := fs.ReadDir(c.root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range all {
		what, g, _ := strings.Cut(e.Name(), "-")
		switch {
		case e.IsDir() && what == incoming:
			g, _, _ = strings.Cut(g, "-")
			err = c.leave(e.Name(), g)
		case e.IsDir() && what == kept:
			err = c.leave(e.Name(), g)
		default:
			err = c.root.RemoveAll(e.Name())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
