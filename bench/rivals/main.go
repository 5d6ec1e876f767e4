package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// contestant is one log in the table.
type contestant struct {
	name string
	open func(dir string) (target, error)
}

func contestants() []contestant {
	return []contestant{
		{"pando", newPando}, {"pando+front", newFronted}, {"etcd wal", newEtcd}, {"raft-wal", newHashicorp},
	}
}

// config is what the flags say.
type config struct {
	rounds  int
	time    time.Duration
	dir     string
	writers []int
	sizes   []int
	only    string
}

func main() {
	c := config{}
	flag.IntVar(&c.rounds, "rounds", 3, "interleaved rounds; the table shows medians")
	flag.DurationVar(&c.time, "time", 400*time.Millisecond, "length of one measurement")
	flag.StringVar(&c.dir, "dir", "", "directory on the disk to measure (default: the system's for temporary files)")
	flag.StringVar(&c.only, "only", "", "measure only the logs whose names contain this")
	writers := flag.String("writers", "1,4,16,64,256", "numbers of writers")
	sizes := flag.String("sizes", "128,1024", "payload sizes in bytes")
	flag.Parse()
	c.writers, c.sizes = numbers(*writers), numbers(*sizes)
	if err := run(&c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func numbers(s string) []int {
	var all []int
	for f := range strings.SplitSeq(s, ",") {
		if n, err := strconv.Atoi(f); err == nil && n > 0 {
			all = append(all, n)
		}
	}
	return all
}

func run(c *config) error {
	for _, size := range c.sizes {
		rates := map[string]map[int]float64{}
		for _, n := range c.writers {
			if err := cell(c, size, n, rates); err != nil {
				return err
			}
		}
		show(c, size, rates)
	}
	return nil
}

// cell measures all logs with n writers, in interleaved rounds.
func cell(c *config, size, n int, rates map[string]map[int]float64) error {
	all := map[string][]float64{}
	for range c.rounds {
		for _, x := range contestants() {
			if !strings.Contains(x.name, c.only) {
				continue
			}
			rate, err := measure(c, x, size, n)
			if err != nil {
				return fmt.Errorf("%s, %d writers of %d bytes: %w", x.name, n, size, err)
			}
			all[x.name] = append(all[x.name], rate)
		}
	}
	for name, r := range all {
		slices.Sort(r)
		if rates[name] == nil {
			rates[name] = map[int]float64{}
		}
		rates[name][n] = r[len(r)/2]
	}
	return nil
}

// measure returns the durable records per second of n blocking writers.
func measure(c *config, x contestant, size, n int) (float64, error) {
	dir, err := os.MkdirTemp(c.dir, "rivals-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	t, err := x.open(dir)
	if err != nil {
		return 0, err
	}
	runtime.GC()
	var count atomic.Int64
	var stop atomic.Bool
	var failed atomic.Value
	var wg sync.WaitGroup
	start := time.Now()
	for i := range n {
		write := t.writer(i)
		wg.Go(func() {
			payload := make([]byte, size)
			mine := int64(0)
			for !stop.Load() {
				if err := write(payload); err != nil {
					failed.Store(err)
					break
				}
				mine++
			}
			count.Add(mine)
		})
	}
	time.Sleep(c.time)
	stop.Store(true)
	wg.Wait()
	took := time.Since(start)
	if err, _ := failed.Load().(error); err != nil {
		return 0, err
	}
	return float64(count.Load()) / took.Seconds(), t.close()
}

// show prints the table of one payload size.
func show(c *config, size int, rates map[string]map[int]float64) {
	fmt.Printf("\n%d B payload: durable records/s, median of %d rounds of %v, GOMAXPROCS %d\n",
		size, c.rounds, c.time, runtime.GOMAXPROCS(0))
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "writers\t")
	for _, n := range c.writers {
		fmt.Fprintf(w, "%d\t", n)
	}
	fmt.Fprintln(w)
	for _, x := range contestants() {
		if rates[x.name] == nil {
			continue
		}
		fmt.Fprintf(w, "%s\t", x.name)
		for _, n := range c.writers {
			fmt.Fprintf(w, "%.1fk\t", rates[x.name][n]/1000)
		}
		fmt.Fprintln(w)
	}
	for _, ours := range []string{"pando", "pando+front"} {
		for _, rival := range []string{"etcd wal", "raft-wal"} {
			if rates[ours] == nil || rates[rival] == nil {
				continue
			}
			fmt.Fprintf(w, "%s / %s\t", ours, rival)
			for _, n := range c.writers {
				fmt.Fprintf(w, "%.2fx\t", rates[ours][n]/rates[rival][n])
			}
			fmt.Fprintln(w)
		}
	}
	_ = w.Flush()
}
