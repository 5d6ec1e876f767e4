package partition

import (
	"encoding/json"
	"errors"
	"testing"
)

// TestGroupIDNames: commands, logs and JSON name a group the same way.
func TestGroupIDNames(t *testing.T) {
	b, err := json.Marshal([]GroupID{17})
	if err != nil || string(b) != `["g17"]` {
		t.Errorf("JSON %s, %v", b, err)
	}
	for _, s := range []string{`"g17"`, `"17"`, `17`} {
		var g GroupID
		if err := json.Unmarshal([]byte(s), &g); err != nil || g != 17 {
			t.Errorf("read %s: %v, %v", s, g, err)
		}
	}
	for _, s := range []string{"", "g", "g0", "x1", "g-1", "18446744073709551616"} {
		if _, err := ParseGroupID(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseGroupID(%q): %v, want an invalid name", s, err)
		}
	}
}
