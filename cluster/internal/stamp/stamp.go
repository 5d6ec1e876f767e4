package stamp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"pando.dev/pando/partition"
)

const (
	magic       = "PANDOSTM"
	headerBytes = len(magic) + 4 + 4 + 4 // magic, format, length, checksum of all else
	// MaxBytes bounds the content.
	MaxBytes = 256 << 10
)

// Write replaces the file's content durably: when it returns nil, the new
// content is there after any crash.
func Write(path string, format uint32, content []byte) error {
	if len(content) > MaxBytes {
		return partition.Errorf(partition.CodeTooLarge, "%s: %d bytes, limit %d", path, len(content), MaxBytes)
	}
	one := encode(format, content)
	tmp := path + ".new"
	if err := writeFile(tmp, append(one, one...)); err != nil {
		return fmt.Errorf("write %s: %w", tmp, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// Read returns the file's content. It returns fs.ErrNotExist if there is no
// such file, CodeNewerFormat if its format is above the given one, and
// CodeCorrupt if neither copy passes its checks.
func Read(path string, format uint32) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 2*int64(MaxBytes+headerBytes)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	content, got, err := decode(b)
	if err != nil {
		return nil, &partition.Error{
			Code: partition.CodeCorrupt, Why: fmt.Sprintf("%s: %v", path, err),
			Next: "restore the file from a backup, or start the node in a new data directory",
		}
	}
	if got > format {
		return nil, &partition.Error{
			Code: partition.CodeNewerFormat,
			Why:  fmt.Sprintf("%s has format %d, this program knows up to %d", path, got, format),
			Next: "start the version that wrote it, or a newer one",
		}
	}
	return content, nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

func encode(format uint32, content []byte) []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, 2*(headerBytes+len(content)))
	b = append(b, magic...)
	b = le.AppendUint32(b, format)
	b = le.AppendUint32(b, uint32(len(content)))
	b = le.AppendUint32(b, checksum(b, content))
	return append(b, content...)
}

// checksum covers magic, format, length and content.
func checksum(head, content []byte) uint32 {
	all := make([]byte, 0, len(head)+len(content))
	return partition.Checksum(append(append(all, head...), content...))
}

// decode returns the first copy that is whole. The second one is found from the
// end as well, because the length in a damaged first copy is worth nothing.
func decode(b []byte) (content []byte, format uint32, err error) {
	content, format, err = decodeCopy(b)
	if err == nil {
		return content, format, nil
	}
	if len(b)%2 == 0 {
		if content, format, second := decodeCopy(b[len(b)/2:]); second == nil {
			return content, format, nil
		}
	}
	return nil, 0, err
}

var (
	errHead     = errors.New("no valid head")
	errShort    = errors.New("cut short")
	errChecksum = errors.New("checksum does not match")
)

func decodeCopy(b []byte) (content []byte, format uint32, err error) {
	if len(b) < headerBytes || string(b[:len(magic)]) != magic {
		return nil, 0, errHead
	}
	le, head := binary.LittleEndian, b[:headerBytes-4]
	n := le.Uint32(head[len(magic)+4:])
	if n > MaxBytes || int(n) > len(b)-headerBytes {
		return nil, 0, errShort
	}
	content = b[headerBytes : headerBytes+int(n)]
	if checksum(head, content) != le.Uint32(b[headerBytes-4:]) {
		return nil, 0, errChecksum
	}
	return content, le.Uint32(head[len(magic):]), nil
}

func writeFile(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// IsNotExist reports whether Read found no file.
func IsNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
