package actors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"pando.dev/pando/partition"
)

// The small files of a node are replaced as a whole. What must not be taken for
// something else after damage is sealed: magic | checksum u32 of the body | body.

// writeSealed replaces a sealed file.
func writeSealed(path, magic string, body []byte) error {
	b := binary.LittleEndian.AppendUint32([]byte(magic), partition.Checksum(body))
	return writeFile(path, append(b, body...))
}

// readSealed returns the body of a sealed file: CodeCorrupt if it is damaged, and
// os.ReadFile's error if it cannot be read.
func readSealed(path, magic string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	head := len(magic) + 4
	if len(b) < head || string(b[:len(magic)]) != magic || binary.LittleEndian.Uint32(b[len(magic):]) != partition.Checksum(b[head:]) {
		return nil, partition.Errorf(partition.CodeCorrupt, "%s is damaged", path)
	}
	return b[head:], nil
}

// writeFile replaces a small file so that a crash leaves the old or the new one.
func writeFile(path string, b []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err == nil {
		err = errors.Join(dir.Sync(), dir.Close())
	}
	return err
}
