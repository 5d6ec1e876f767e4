package memfs

import "bytes"

const (
	// SectorBytes is what a disk writes whole or not at all.
	SectorBytes = 512
	// pageBytes is how memory is taken; a page of zeros takes none.
	pageBytes   = 8 * SectorBytes
	pageSectors = pageBytes / SectorBytes
)

type page [pageBytes]byte

// file is what an inode is: contents without a name. Most of a log's files is
// zeros, so pages that never were anything else are nil.
type file struct {
	size        int64
	cache, disk []*page
	dirty       []uint8 // per page, the sectors of cache that were written since the last sync
}

func newFile(size int64) *file {
	n := (size + pageBytes - 1) / pageBytes
	return &file{size: size, cache: make([]*page, n), disk: make([]*page, n), dirty: make([]uint8, n)}
}

// clone is a file of its own; its cache is a copy of the given pages.
func (f *file) clone(cache []*page) *file {
	c := newFile(f.size)
	copyPages(c.cache, cache)
	copyPages(c.disk, f.disk)
	return c
}

func copyPages(dst, src []*page) {
	for i, p := range src {
		if p != nil {
			q := *p
			dst[i] = &q
		}
	}
}

// read copies from off on and returns how much there is.
func (f *file) read(b []byte, off int64) int {
	n := int(min(int64(len(b)), f.size-off))
	for done := 0; done < n; {
		p, at := f.cache[(off+int64(done))/pageBytes], int(off+int64(done))%pageBytes
		part := b[done:min(n, done+pageBytes-at)]
		if p == nil {
			clear(part)
		} else {
			copy(part, p[at:])
		}
		done += len(part)
	}
	return n
}

// write writes into the cache. The file does not grow.
func (f *file) write(b []byte, off int64) {
	for len(b) > 0 {
		i, at := off/pageBytes, int(off%pageBytes)
		n := min(len(b), pageBytes-at)
		part := b[:n]
		b, off = b[n:], off+int64(n)
		for s := at / SectorBytes; s*SectorBytes < at+n; s++ {
			f.dirty[i] |= 1 << s
		}
		if f.cache[i] == nil {
			if blank(part) {
				continue
			}
			f.cache[i] = new(page)
		}
		copy(f.cache[i][at:], part)
	}
}

// blank reports whether b is nothing but zeros.
func blank(b []byte) bool { return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1]) }

// everyDirty yields the dirty sectors, each with the word whether it counts as clean
// from now on.
func (f *file) everyDirty(do func(page, sector int) (clean bool)) {
	for i, dirty := range f.dirty {
		if dirty == 0 {
			continue
		}
		for s := range pageSectors {
			if dirty&(1<<s) != 0 && do(i, s) {
				f.dirty[i] &^= 1 << s
			}
		}
	}
}

// copySector copies one sector of a page.
func copySector(dst, src []*page, i, s int) {
	if src[i] == nil {
		if dst[i] != nil {
			clear(dst[i][s*SectorBytes:][:SectorBytes])
		}
		return
	}
	if dst[i] == nil {
		dst[i] = new(page)
	}
	copy(dst[i][s*SectorBytes:][:SectorBytes], src[i][s*SectorBytes:])
}

// flip changes bits of a byte, in the cache and on disk.
func (f *file) flip(off int64, bits byte) {
	for _, pages := range [][]*page{f.cache, f.disk} {
		i := off / pageBytes
		if pages[i] == nil {
			pages[i] = new(page)
		}
		pages[i][off%pageBytes] ^= bits
	}
}
