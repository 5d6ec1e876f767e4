package client

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

func tokens(t *rapid.T, name string) Token {
	seen := rapid.MapOfN(
		rapid.Custom(func(t *rapid.T) partition.GroupID {
			return partition.GroupID(rapid.Uint64Min(1).Draw(t, "group")>>rapid.IntRange(0, 60).Draw(t, "small") | 1)
		}),
		rapid.Custom(func(t *rapid.T) partition.Index { return partition.Index(rapid.Uint64Min(1).Draw(t, "index")) }),
		0, 20).Draw(t, name)
	return tokenOf(seen)
}

// TestTokenRoundTrip: the text of a token is the token, and joining two is what
// a map of maxima does.
func TestTokenRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := tokens(t, "a"), tokens(t, "b")
		if back, err := ParseToken(a.String()); err != nil || !reflect.DeepEqual(a, back) {
			t.Fatalf("%v became %v, %v", a, back, err)
		}
		ab := a.Join(b)
		if !reflect.DeepEqual(ab, b.Join(a)) || !reflect.DeepEqual(ab, ab.Join(a)) {
			t.Fatalf("%v and %v: %v", a, b, ab)
		}
		var seen Seen
		seen.Add(a)
		seen.Add(b)
		if !reflect.DeepEqual(ab, seen.Token()) {
			t.Fatalf("joined %v, seen %v", ab, seen.Token())
		}
		for _, m := range ab.marks {
			if want := max(a.Index(m.group), b.Index(m.group)); m.index != want || seen.index(m.group) != want || want == 0 {
				t.Fatalf("group %s: %d, want %d", m.group, m.index, want)
			}
		}
		if ab.Index(2) != 0 { // only odd ones are drawn
			t.Fatal("a group that nobody has seen")
		}
	})
}

// TestTokenRefused: text that is no token is not taken for one.
func TestTokenRefused(t *testing.T) {
	text := Token{marks: []mark{{3, 70}, {300, 5}}}.String()
	for i := range text {
		for _, c := range []byte("Az9-_ =") {
			if text[i] == c {
				continue
			}
			if got, err := ParseToken(text[:i] + string(c) + text[i+1:]); !errors.Is(err, partition.ErrInvalid) && !errors.Is(err, partition.ErrNewerFormat) {
				t.Errorf("byte %d made %q: %v, %v", i, c, got, err)
			}
		}
		if got, err := ParseToken(text[:i]); i > 0 && err == nil {
			t.Errorf("cut to %d: %v", i, got)
		}
	}
	sealed := func(b ...byte) string {
		return base64.RawURLEncoding.EncodeToString(binary.LittleEndian.AppendUint32(b, partition.Checksum(b)))
	}
	many := map[partition.GroupID]partition.Index{}
	for g := range partition.GroupID(MaxTokenGroups + 1) {
		many[g+1] = 1
	}
	over := tokenOf(many)
	for name, x := range map[string]struct {
		text string
		want error
	}{
		"whole":               {sealed(1, 1, 7, 9, 0), nil},
		"newer version":       {sealed(2, 1, 7, 9, 0), partition.ErrNewerFormat},
		"version 0":           {sealed(0, 1, 7, 9, 0), partition.ErrInvalid},
		"another history":     {sealed(1, 1, 7, 9, 1), partition.ErrInvalid},
		"group 0":             {sealed(1, 1, 0, 9, 0), partition.ErrInvalid},
		"group twice":         {sealed(1, 2, 7, 9, 0, 0, 9, 0), partition.ErrInvalid},
		"index 0":             {sealed(1, 1, 7, 0, 0), partition.ErrInvalid},
		"more than announced": {sealed(1, 1, 7, 9, 0, 1, 1, 0), partition.ErrInvalid},
		"less than announced": {sealed(1, 2, 7, 9, 0), partition.ErrInvalid},
		"endless number":      {sealed(1, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255), partition.ErrInvalid},
		"nothing":             {sealed(), partition.ErrInvalid},
		"too many":            {over.String(), partition.ErrInvalid},
	} {
		if got, err := ParseToken(x.text); !errors.Is(err, x.want) || err == nil && got.Index(7) != 9 {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if err := over.Check(); !errors.Is(err, partition.ErrTooLarge) {
		t.Errorf("a token over the limit: %v", err)
	}
	if got, err := ParseToken(""); err != nil || !got.IsZero() {
		t.Errorf("no token: %v, %v", got, err)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add([]byte{1, 1, 7, 9, 0})
	f.Add([]byte{1, 2, 7, 9, 0, 200, 1, 128, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := base64.RawURLEncoding.EncodeToString(binary.LittleEndian.AppendUint32(b, partition.Checksum(b)))
		token, err := ParseToken(s)
		if err != nil {
			return
		}
		back, err := ParseToken(token.String())
		if err != nil || !reflect.DeepEqual(token, back) {
			t.Fatalf("%v became %v, %v", token, back, err)
		}
	})
}
