package store

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// templateFile is one file of an empty Pebble store.
type templateFile struct {
	name string
	data []byte
}

// makeTemplate makes an empty Pebble store in memory and returns its files.
// Pebble makes a store in its oldest format and raises it step by step, with a
// new file and a sync for each; a store made from the template opens in the
// format it is to have.
func (e *Engine) makeTemplate() ([]templateFile, error) {
	const dir = "template"
	mem := vfs.NewMem()
	fs := e.newFS(func(error) {})
	fs.FS = mem
	o := &pebble.Options{
		FS: fs, Cache: e.cache, FileCache: e.files, Logger: pebbleLog{e: e}, DisableWAL: true, FormatMajorVersion: formatVersion,
		EventListener: &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}},
	}
	o.Experimental.CompactionScheduler = e.scheduler.newCompactor()
	db, err := pebble.Open(dir, o)
	if err != nil {
		return nil, fmt.Errorf("make the template of a store: %w", err)
	}
	if err := db.Close(); err != nil {
		return nil, fmt.Errorf("make the template of a store: %w", err)
	}
	names, err := mem.List(dir)
	if err != nil {
		return nil, fmt.Errorf("read the template of a store: %w", err)
	}
	var files []templateFile
	for _, n := range names {
		if strings.HasPrefix(n, "OPTIONS") {
			continue // Pebble writes its own at each open, and removes this one in its own time
		}
		f, err := mem.Open(mem.PathJoin(dir, n))
		if err != nil {
			return nil, fmt.Errorf("read the template of a store: %w", err)
		}
		b, err := io.ReadAll(f)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return nil, fmt.Errorf("read the template of a store: %w", err)
		}
		files = append(files, templateFile{name: n, data: b})
	}
	return files, nil
}

// fromTemplate puts an empty store into a directory, without a sync.
func (sp *space) fromTemplate() error {
	files, err := sp.e.template()
	if err != nil {
		return err
	}
	for _, t := range files {
		name := sp.fs.PathJoin(sp.dir, t.name)
		f, err := sp.fs.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			return fmt.Errorf("create %s: %w", name, err)
		}
		if len(t.data) > 0 {
			_, err = f.Write(bytes.Clone(t.data)) // Write may change what it is given
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}
