package main

import (
	"context"
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

var levels = [...]client.Level{client.Lease, client.Quorum, client.Session, client.Stale}

// verify begins to read what was written, until the verifier is stopped.
func (c *cluster) verify(ctx context.Context, written []int) (*verifier, error) {
	v := &verifier{t: c.t, written: written, value: fillValue, right: map[string]int{}, errs: map[string]int{}}
	ways, err := v.ways(ctx, c)
	if err != nil {
		v.stop()
		return nil, err
	}
	for i, w := range ways {
		v.begin(w, uint64(i), 10*time.Millisecond)
	}
	for _, level := range levels {
		v.begin(way{"pando kv get --level " + level.String(), func(ctx context.Context, key string) (string, error) {
			return c.commandGet(ctx, key, level)
		}}, 100+uint64(level), commandEvery)
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
func (v *verifier) ways(ctx context.Context, c *cluster) ([]way, error) {
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
		for _, level := range levels {
			ways = append(ways, way{fmt.Sprintf("client of %s, %s", from, level), func(ctx context.Context, key string) (string, error) {
				return s.get(ctx, key, level)
			}})
		}
	}
	for i, level := range levels {
		addr := c.nodes[i%len(c.nodes)].http
		ways = append(ways, way{"http, " + level.String(), func(ctx context.Context, key string) (string, error) {
			return httpGet(ctx, addr, key, level)
		}})
	}
	return ways, nil
}

// httpGet reads a value from one node over HTTP.
func httpGet(ctx context.Context, addr, key string, level client.Level) (string, error) {
	at := url.URL{Scheme: "http", Host: addr, Path: "/api/v1/kv/" + tableName + "/" + key, RawQuery: "level=" + level.String()}
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
func (c *cluster) commandGet(ctx context.Context, key string, level client.Level) (string, error) {
	o, err := c.t.command(ctx, "kv", "get", tableName, key, "--raw", "--level", level.String(), "--timeout", "3s", "--addr", strings.Join(c.allHTTP(), ","))
	if err == nil && o.code != 0 {
		err = fmt.Errorf("exit code %d: %s", o.code, o.err)
	}
	return o.out, err
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
		v.errs[partition.CodeOf(err).String()]++
	case got == v.value(seed):
		v.right[w.name]++
	default:
		if v.wrong++; v.wrong <= maxTold {
			v.t.violate("%s: %s holds %d bytes that are not what was written", w.name, fillKey(seed), len(got))
		}
	}
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
