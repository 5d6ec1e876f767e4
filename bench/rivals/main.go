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
	"syscall"
	"text/tabwriter"
	"time"
)

// contestant is one log in the table.
type contestant struct {
	name string
	open func(dir string, gather time.Duration) (target, error)
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
	quiet   float64
	wait    time.Duration
	gather  time.Duration
}

// maxRetries bounds the repetitions of one measurement for quietness' sake.
const maxRetries = 3000

func main() {
	c := config{}
	flag.IntVar(&c.rounds, "rounds", 3, "interleaved rounds; the table shows medians")
	flag.DurationVar(&c.time, "time", 400*time.Millisecond, "length of one measurement")
	flag.StringVar(&c.dir, "dir", "", "directory on the disk to measure (default: the system's for temporary files)")
	flag.StringVar(&c.only, "only", "", "measure only the logs whose names contain this")
	flag.Float64Var(&c.quiet, "quiet", 0, "repeat a measurement while others used more than this share of the processors (0: never)")
	flag.DurationVar(&c.wait, "wait", 200*time.Millisecond, "how long it must have been quiet before")
	flag.DurationVar(&c.gather, "gather", 50*time.Microsecond, "how long the common front waits for writers to come back (0: never)")
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
		t := table{rate: map[string]map[int]float64{}, cpu: map[string]map[int]float64{}}
		for _, n := range c.writers {
			if err := t.cell(c, size, n); err != nil {
				return err
			}
		}
		t.show(c, size)
	}
	return nil
}

// table holds the medians by log and number of writers: durable records per
// second, and microseconds of processor time per record.
type table struct{ rate, cpu map[string]map[int]float64 }

// cell measures all logs with n writers, in interleaved rounds.
func (t *table) cell(c *config, size, n int) error {
	rates, cpus := map[string][]float64{}, map[string][]float64{}
	for range c.rounds {
		for _, x := range contestants() {
			if !strings.Contains(x.name, c.only) {
				continue
			}
			rate, cpu, err := quietly(c, x, size, n)
			if err != nil {
				return fmt.Errorf("%s, %d writers of %d bytes: %w", x.name, n, size, err)
			}
			rates[x.name] = append(rates[x.name], rate)
			cpus[x.name] = append(cpus[x.name], cpu)
		}
	}
	for name := range rates {
		if t.rate[name] == nil {
			t.rate[name], t.cpu[name] = map[int]float64{}, map[int]float64{}
		}
		t.rate[name][n], t.cpu[name][n] = median(rates[name]), median(cpus[name])
	}
	return nil
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// processor is the processor time that this process has used.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// quietly measures while nobody else disturbs, if that is asked for: it waits
// for a quiet moment, and measures again if that did not last.
func quietly(c *config, x contestant, size, n int) (rate, cpu float64, err error) {
	for range maxRetries {
		if c.quiet > 0 && others(func() { time.Sleep(c.wait) }) > c.quiet {
			continue
		}
		share := others(func() { rate, cpu, err = measure(c, x, size, n) })
		if err != nil || c.quiet == 0 || share <= c.quiet {
			return rate, cpu, err
		}
	}
	return 0, 0, fmt.Errorf("others used more than %.0f %% of the processors, %d times in a row", c.quiet*100, maxRetries)
}

// others returns the share of the processors that other processes used during f.
func others(f func()) float64 {
	busy, own, start := machine(), processor(), time.Now()
	f()
	used := (machine() - busy) - (processor() - own)
	return used.Seconds() / time.Since(start).Seconds() / float64(runtime.NumCPU())
}

// machine is the processor time that all processes have used; 0 where that is
// not known.
func machine() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	ticks := 0
	for i, f := range strings.Fields(line) {
		if i >= 1 && i <= 8 && i != 4 && i != 5 { // all but idle and waiting for disks
			n, _ := strconv.Atoi(f)
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// measure returns the durable records per second of n blocking writers, and the
// processor time per record in microseconds, housekeeping included.
func measure(c *config, x contestant, size, n int) (rate, cpu float64, err error) {
	dir, err := os.MkdirTemp(c.dir, "rivals-")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	t, err := x.open(dir, c.gather)
	if err != nil {
		return 0, 0, err
	}
	runtime.GC()
	var count atomic.Int64
	var stop atomic.Bool
	var failed atomic.Value
	var wg sync.WaitGroup
	start, used := time.Now(), processor()
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
	took, spent := time.Since(start), processor()-used
	if err, _ := failed.Load().(error); err != nil {
		return 0, 0, err
	}
	done := float64(max(1, count.Load()))
	return done / took.Seconds(), spent.Seconds() * 1e6 / done, t.close()
}

// show prints the table of one payload size.
func (t *table) show(c *config, size int) {
	rates := t.rate
	fmt.Printf("\n%d B payload: durable records/s, median of %d rounds of %v, front gathers %v, GOMAXPROCS %d\n",
		size, c.rounds, c.time, c.gather, runtime.GOMAXPROCS(0))
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
	for _, x := range contestants() {
		if rates[x.name] == nil {
			continue
		}
		fmt.Fprintf(w, "%s us CPU/record\t", x.name)
		for _, n := range c.writers {
			fmt.Fprintf(w, "%.2f\t", t.cpu[x.name][n])
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
