package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// answerRun runs a command on a node that answers every request with v.
func answerRun(t *testing.T, v any, args ...string) (string, int) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) }))
	defer s.Close()
	var out strings.Builder
	code := execute(t.Context(), append([]string{"--addr", strings.TrimPrefix(s.URL, "http://")}, args...), strings.NewReader(""), &out, &out)
	return out.String(), code
}

// TestVerifyCommand: what a verification prints and ends with.
func TestVerifyCommand(t *testing.T) {
	same := actors.VerifiedPartition{Group: 7, Table: "t", Index: 812, Verdict: actors.VerdictSame, Replicas: []actors.VerifiedReplica{
		{Replica: 1, Node: "n1", Verdict: actors.VerdictSame, Digest: "00112233445566778899", Rows: 3, Files: 2},
	}}
	bad := actors.VerifiedPartition{Group: 8, Table: "t", Index: 5, Verdict: actors.VerdictDamaged, Why: "the state on n2 is damaged", Replicas: []actors.VerifiedReplica{
		{Replica: 2, Node: "n2", Verdict: actors.VerdictDamaged, Why: "file 000004.sst"},
	}}
	for _, c := range []struct {
		args string
		info actors.VerifyInfo
		code int
		has  []string
	}{
		{"g7", actors.VerifyInfo{Done: true, Ended: 1, Of: 1, Rows: 3, Bytes: 2048, Partitions: []actors.VerifiedPartition{same}}, 0, []string{"812", "001122334455 ", "1 partition verified, 3 rows and 2 KiB read"}},
		{"--all", actors.VerifyInfo{Done: true, Ended: 2, Of: 2, Partitions: []actors.VerifiedPartition{same, bad}}, exitUnhealthy, []string{"damaged", "n2", "000004.sst", "2 partitions"}},
		{"t -o json", actors.VerifyInfo{Done: true, Partitions: []actors.VerifiedPartition{same}}, 0, []string{`"verdict": "same"`}},
		{"t/key --wait 300ms", actors.VerifyInfo{Of: 9}, exitError, []string{"timeout", "0 of 9"}},
		{"", actors.VerifyInfo{}, exitUsage, []string{"--all"}},
		{"t --all", actors.VerifyInfo{}, exitUsage, []string{"--all"}},
	} {
		c.info.Token = "x"
		out, code := answerRun(t, c.info, append([]string{"partition", "verify"}, strings.Fields(c.args)...)...)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d: %s", c.args, code, c.code, out)
		}
		for _, has := range c.has {
			if !strings.Contains(out, has) {
				t.Errorf("%s: no %q in\n%s", c.args, has, out)
			}
		}
	}
	for arg, want := range map[string]actors.VerifyRequest{
		"t": {Table: "t"}, "t/a/b": {Table: "t", Key: []byte("a/b")}, "g7": {Groups: []partition.GroupID{7}},
	} {
		r, err := verifyRequest([]string{arg}, false)
		if err != nil || r.Table != want.Table || string(r.Key) != string(want.Key) || len(r.Groups) != len(want.Groups) {
			t.Errorf("%s: %+v, %v", arg, r, err)
		}
	}
}

// TestWaitLine: on a terminal one line is drawn again and taken away; elsewhere
// lines come now and then; with JSON there are none.
func TestWaitLine(t *testing.T) {
	var out strings.Builder
	l := &waitLine{w: &out, redraw: true}
	at := time.Unix(0, 0).Add(time.Hour)
	l.show(at, "one")
	l.show(at, "too soon")
	l.show(at.Add(time.Second), strings.Repeat("x", 200))
	l.end()
	if want := "\rone\x1b[K\r" + strings.Repeat("x", 76) + "...\x1b[K\r\x1b[K"; out.String() != want {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	l = &waitLine{w: &out}
	for i := range 30 {
		l.show(at.Add(time.Duration(i)*time.Second), strings.Repeat("y", i))
	}
	l.end()
	if got := strings.Count(out.String(), "\n"); got != 3 {
		t.Errorf("%d lines in 30 s: %q", got, out.String())
	}
	(&waitLine{}).show(at, "nothing")
}
