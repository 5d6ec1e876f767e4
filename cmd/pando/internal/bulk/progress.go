package bulk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"

	"pando.dev/pando/partition"
)

// progressFormat is the version of the progress file.
const progressFormat = 1

// Progress is what an interrupted load goes on from: what was being loaded, and
// up to where it is stored.
type Progress struct {
	Version int    `json:"format"`
	Cluster string `json:"cluster"`
	Table   string `json:"table"`
	// Group is the table's first partition. Ids are never reused, so a table
	// that was dropped and made again is told apart.
	Group  partition.GroupID `json:"group"`
	Input  string            `json:"input"`
	Size   int64             `json:"size"`
	Format Format            `json:"record_format"`
	Mark   Mark              `json:"mark"`
}

// ReadProgress reads a progress file; ok is false if there is none.
func ReadProgress(path string) (p Progress, ok bool, err error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, fmt.Errorf("read the progress file: %w", err)
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, false, &partition.Error{
			Code: partition.CodeCorrupt, Why: fmt.Sprintf("progress file %s: %v", path, err),
			Next: "start over with --restart",
		}
	}
	if p.Version > progressFormat {
		return p, false, &partition.Error{
			Code: partition.CodeNewerFormat, Why: fmt.Sprintf("progress file %s has format %d, this program knows %d", path, p.Version, progressFormat),
			Next: "use the pando that began the load, or start over with --restart",
		}
	}
	return p, true, nil
}

// Continues reports whether a load of now goes on from p, and if not, why.
func (p Progress) Continues(now Progress) error {
	why := ""
	switch {
	case p.Cluster != now.Cluster:
		why = fmt.Sprintf("it is of cluster %q, this is %q", p.Cluster, now.Cluster)
	case p.Table != now.Table || p.Group != now.Group:
		why = fmt.Sprintf("it is of table %q (%s), this is %q (%s)", p.Table, p.Group, now.Table, now.Group)
	case p.Input != now.Input || p.Size != now.Size:
		why = fmt.Sprintf("it is of %s with %d bytes, this is %s with %d", p.Input, p.Size, now.Input, now.Size)
	case !reflect.DeepEqual(p.Format, now.Format):
		why = "format, key or value were given differently"
	case p.Mark.Offset < 0 || p.Mark.Offset > now.Size:
		why = fmt.Sprintf("its position %d is outside of the input", p.Mark.Offset)
	default:
		return nil
	}
	return &partition.Error{Code: partition.CodeRefused, Why: "the progress file is of another load: " + why, Next: "start over with --restart"}
}

// Write replaces the progress file in one step, so that a crash leaves the old
// or the new one.
func (p Progress) Write(path string) error {
	p.Version = progressFormat
	raw, _ := json.MarshalIndent(p, "", "  ") // names and numbers always encode
	partial := path + ".partial"
	err := os.WriteFile(partial, append(raw, '\n'), 0o600)
	if err == nil {
		err = os.Rename(partial, path)
	}
	if err != nil {
		return fmt.Errorf("write the progress file: %w", err)
	}
	return nil
}
