package actors

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

const (
	// catalogFile has the last catalog that was known to be whole.
	catalogFile = "CATALOG"
	// catalogMagic begins the file and names its format.
	catalogMagic = "pandocat1\n"
	// rememberPause is the least time between two writes of the file.
	rememberPause = time.Second
)

// The catalog is remembered for one purpose: a node that starts while the control
// group is down must know the partition kinds of the replicas that it holds, or
// they could not take part in their groups. A kind never changes, and where a
// group is does little harm if it is old, so the file may be old, or lost.
//
// It also names the control group that the catalog is of. If all its seats were
// wiped and founded anew, the new catalog would be empty and every replica here
// superfluous: a node drops nothing at the word of another control group.
//
//	magic | checksum u32 of what follows | control group u64 | pages: each length u32, bytes

// rememberCatalog writes the catalog down when it has changed, until the node
// stops.
func (n *Node) rememberCatalog() {
	var written uint64
	n.onChange(n.control.Changed, func() {
		if !n.control.Synced() || n.foreign() {
			return
		}
		cat := n.control.Catalog()
		if cat.Version == written {
			return
		}
		if err := writeCatalog(filepath.Join(n.cfg.Dir, catalogFile), n.control.Status().Group, cat); err != nil {
			n.logger.Warn("catalog not written down", "err", err)
			return
		}
		written = cat.Version
		select {
		case <-n.ctx.Done():
		case <-time.After(rememberPause):
		}
	})
}

// recallCatalog reads what was written down; without it the catalog is empty.
func (n *Node) recallCatalog() *control.Catalog {
	group, cat, err := readCatalog(filepath.Join(n.cfg.Dir, catalogFile))
	if err == nil {
		n.controlGroup = group
		return cat
	}
	if !errors.Is(err, fs.ErrNotExist) {
		n.logger.Warn("catalog not recalled", "err", err)
	}
	return &control.Catalog{}
}

// foreign reports whether the control group that answers is not the one that
// this node's replicas were made by.
func (n *Node) foreign() bool {
	return n.controlGroup != 0 && n.control.Status().Group != n.controlGroup
}

func writeCatalog(path string, group uint64, cat *control.Catalog) error {
	le := binary.LittleEndian
	b := le.AppendUint64(nil, group)
	for _, p := range control.EncodeCatalog(cat) {
		b = append(le.AppendUint32(b, uint32(len(p))), p...)
	}
	return writeSealed(path, catalogMagic, b)
}

func readCatalog(path string) (group uint64, cat *control.Catalog, err error) {
	b, err := readSealed(path, catalogMagic)
	if err != nil {
		return 0, nil, err
	}
	if len(b) < 8 {
		return 0, nil, partition.Errorf(partition.CodeCorrupt, "%s is damaged", path)
	}
	le := binary.LittleEndian
	var pages [][]byte
	group = le.Uint64(b)
	for b = b[8:]; len(b) > 0; {
		if len(b) < 4 || uint64(len(b)-4) < uint64(le.Uint32(b)) {
			return 0, nil, partition.Errorf(partition.CodeCorrupt, "%s has a page without an end", path)
		}
		end := 4 + int(le.Uint32(b))
		pages = append(pages, b[4:end])
		b = b[end:]
	}
	cat, err = control.DecodeCatalog(pages)
	return group, cat, err
}
