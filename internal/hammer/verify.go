package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
)

const (
	// verifyWait bounds one read of a verifier, whose node may be away.
	verifyWait = 2 * time.Second
	// commandEvery is the time between two reads by the command line.
	commandEvery = 2 * time.Second
)

// verifier reads values that never change, all the time, in every way there is
// and from each node, and compares each: a read may fail, but not be wrong.
type verifier struct {
	t       *trial
	written []int // seeds of the values
	value   func(seed int) string

	stopped atomic.Bool
	running sync.WaitGroup
	stores  []*table

	mu    sync.Mutex
	right map[string]int // by way
	errs  map[string]int // by way and code
	wrong int
}

// way is one way to read, which is told from others by its name.
type way struct {
	name string
	get  func(ctx context.Context, key string) (string, error)
}

// readings are the levels, each with a bound below which no answer may be: the
// writer's token, and the record behind all that it wrote.
func readings(written client.Token, through partition.Index) []client.ReadOptions {
	return []client.ReadOptions{
		{Level: client.Lease}, {Level: client.Quorum}, {Level: client.Session, Token: written}, {Level: client.Stale, MinIndex: through},
	}
}

// verify begins to read what a client wrote, until the verifier is stopped.
func (c *cluster) verify(ctx context.Context, writer *table, written []int) (*verifier, error) {
	_, p, err := c.master(ctx, tableName)
	if err != nil {
		return nil, err
	}
	var seen client.Seen // what a read at the end of the writing shows
	if _, err := writer.kv.With(client.ReadOptions{Seen: &seen}).Get(ctx, []byte(fillKey(0))); err != nil {
		return nil, err
	}
	token := seen.Token()
	if token.Index(p.Group) == 0 {
		return nil, errors.New("a read does not say which state it shows")
	}
	levels := readings(token, token.Index(p.Group))
	v := &verifier{t: c.t, written: written, value: fillValue, right: map[string]int{}, errs: map[string]int{}}
	ways, err := v.ways(ctx, c, levels)
	if err != nil {
		v.stop()
		return nil, err
	}
	for i, w := range ways {
		v.begin(w, uint64(i), 10*time.Millisecond)
	}
	for _, o := range levels {
		v.begin(way{"pando kv get --level " + o.Level.String(), func(ctx context.Context, key string) (string, error) {
			return c.commandGet(ctx, key, o)
		}}, 100+uint64(o.Level), commandEvery)
	}
	return v, nil
}

// begin reads in one way on a goroutine of its own.
func (v *verifier) begin(w way, id uint64, pace time.Duration) {
	v.running.Go(func() {
		rng := rand.New(rand.NewPCG(v.t.opts.seed, 1000+id))
		for !v.stopped.Load() {
			v.read(w, v.written[rng.IntN(len(v.written))])
			rest(pace, rng)
		}
	})
}

// ways lists every level, by the client of each node and of all, and over HTTP.
func (v *verifier) ways(ctx context.Context, c *cluster, levels []client.ReadOptions) ([]way, error) {
	var ways []way
	for i := -1; i < len(c.nodes); i++ {
		from, links := "all nodes", c.links()
		if i >= 0 {
			from, links = c.nodes[i].name, []string{c.nodes[i].reached()}
		}
		s, err := openTable(ctx, c.name, tableName, links)
		if err != nil {
			return nil, err
		}
		v.stores = append(v.stores, s)
		for _, o := range levels {
			ways = append(ways, way{fmt.Sprintf("client of %s, %s", from, o.Level), func(ctx context.Context, key string) (string, error) {
				a, err := s.kv.With(o).Get(ctx, []byte(key))
				return string(a.Value), err
			}})
		}
	}
	for i, o := range levels {
		addr := c.nodes[i%len(c.nodes)].http
		ways = append(ways, way{"http, " + o.Level.String(), func(ctx context.Context, key string) (string, error) {
			return httpGet(ctx, addr, key, o)
		}})
	}
	return ways, nil
}

// httpGet reads a value from one node over HTTP.
func httpGet(ctx context.Context, addr, key string, o client.ReadOptions) (string, error) {
	q := url.Values{"level": {o.Level.String()}}
	switch o.Level {
	case client.Session:
		q.Set("token", o.Token.String())
	case client.Stale:
		q.Set("min_index", fmt.Sprint(o.MinIndex))
	}
	at := url.URL{Scheme: "http", Host: addr, Path: "/api/v1/kv/" + tableName + "/" + key, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 2*fillValueBytes))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", resp.Status, b)
	}
	return string(b), err
}

// commandGet reads a value with the command line.
func (c *cluster) commandGet(ctx context.Context, key string, o client.ReadOptions) (string, error) {
	args := []string{"kv", "get", tableName, key, "--raw", "--level", o.Level.String(), "--timeout", "3s", "--addr", strings.Join(c.allHTTP(), ",")}
	switch o.Level {
	case client.Session:
		args = append(args, "--token", o.Token.String())
	case client.Stale:
		args = append(args, "--min-index", fmt.Sprint(o.MinIndex))
	}
	got, err := c.t.command(ctx, args...)
	if err == nil && got.code != 0 {
		err = fmt.Errorf("exit code %d: %s", got.code, got.err)
	}
	return got.out, err
}

// read reads one value in one way.
func (v *verifier) read(w way, seed int) {
	ctx, cancel := context.WithTimeout(context.Background(), verifyWait)
	defer cancel()
	got, err := w.get(ctx, fillKey(seed))
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err != nil:
		v.failed(err)
	case got == v.value(seed):
		v.right[w.name]++
	default:
		if v.wrong++; v.wrong <= maxTold {
			v.t.violate("%s: %s holds %d bytes that are not what was written, %s after the start", w.name, fillKey(seed), len(got), time.Since(v.t.began).Round(time.Millisecond))
		}
	}
}

// failed notes a read that was not answered. It is called with v.mu held.
func (v *verifier) failed(err error) {
	code := partition.CodeOf(err).String()
	if v.errs[code] == 0 {
		v.t.row("not answered", "%s, such as: %.200v", code, err)
	}
	v.errs[code]++
}

// stop ends the reading.
func (v *verifier) stop() {
	v.stopped.Store(true)
	v.running.Wait()
	for _, s := range v.stores {
		s.close()
	}
	v.stores = nil
}

// report says how much was read, and wants that each way has answered.
func (v *verifier) report() {
	v.mu.Lock()
	defer v.mu.Unlock()
	total := 0
	for _, n := range v.right {
		total += n
	}
	v.t.row("read", "%d values in %d ways, every one compared: %d wrong; not answered: %v", total, len(v.right), v.wrong, v.errs)
}
