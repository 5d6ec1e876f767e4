package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"pando.dev/pando/cmd/pando/internal/bulk"
)

// saveEvery is how often the progress file is written: what is loaded since is
// loaded again after a crash.
const saveEvery = time.Second

// saver keeps the progress file of a load. Its goroutine writes, so that a slow
// disk holds up no write to the table.
type saver struct {
	job  *loadJob
	stop chan struct{}
	done chan struct{}

	mu   sync.Mutex
	mark bulk.Mark
	err  error // of the last write
}

func newSaver(j *loadJob) *saver {
	s := &saver{job: j, stop: make(chan struct{}), done: make(chan struct{}), mark: j.progress.Mark}
	if !j.resumable() {
		close(s.done)
		return s
	}
	go s.run()
	return s
}

func (s *saver) set(m bulk.Mark) {
	s.mu.Lock()
	s.mark = m
	s.mu.Unlock()
}

func (s *saver) run() {
	defer close(s.done)
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		m := s.mark
		s.mu.Unlock()
		s.err = s.write(m)
	}
}

func (s *saver) write(m bulk.Mark) error {
	p := s.job.progress
	p.Mark = m
	return p.Write(s.job.flags.progress)
}

// end writes the last mark, or removes the file if everything is loaded.
func (s *saver) end(m bulk.Mark, all bool) error {
	if !s.job.resumable() {
		return nil
	}
	close(s.stop)
	<-s.done
	if all {
		if err := os.Remove(s.job.flags.progress); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the progress file: %w", err)
		}
		return nil
	}
	if m.Offset == 0 {
		return nil
	}
	return s.write(m)
}

// meter shows how far a load or export is: a bar for somebody who looks, a line
// now and then otherwise.
type meter struct {
	mu      sync.Mutex
	records int64
	at      int64

	bar  *mpb.Bar
	bars *mpb.Progress

	quiet bool
	stop  chan struct{}
	done  chan struct{}
}

// lineEvery is how often a line is printed where there is no terminal.
const lineEvery = 10 * time.Second

// newMeter returns a meter of size bytes, or of an unknown amount for less than
// one.
func (c *cli) newMeter(name string, size int64, quiet bool) *meter {
	m := &meter{quiet: quiet, stop: make(chan struct{}), done: make(chan struct{})}
	switch {
	case quiet:
		close(m.done)
	case isTerminal(c.err):
		close(m.done)
		m.bars = mpb.New(mpb.WithOutput(c.err), mpb.WithWidth(40))
		m.bar = m.newBar(name, size)
	default:
		go m.lines(c.err, name)
	}
	return m
}

// newBar is a bar to the end of size bytes, or a spinner if nobody knows where
// that is.
func (m *meter) newBar(name string, size int64) *mpb.Bar {
	records := decor.Any(func(decor.Statistics) string { return fmt.Sprintf(" %d records ", m.count()) })
	label := mpb.PrependDecorators(decor.Name(name + " "))
	if size < 1 {
		return m.bars.AddSpinner(0, label, mpb.AppendDecorators(records))
	}
	return m.bars.AddBar(size, label, mpb.AppendDecorators(decor.Percentage(), records, decor.AverageETA(decor.ET_STYLE_GO)))
}

func (m *meter) count() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records
}

// set is told how many bytes and records are done.
func (m *meter) set(at, records int64) {
	m.mu.Lock()
	m.at, m.records = at, records
	m.mu.Unlock()
	if m.bar != nil {
		m.bar.SetCurrent(at)
	}
}

func (m *meter) lines(w io.Writer, name string) {
	defer close(m.done)
	tick := time.NewTicker(lineEvery)
	defer tick.Stop()
	last := int64(0)
	for {
		select {
		case <-m.stop:
			return
		case <-tick.C:
			n := m.count()
			fmt.Fprintf(w, "%s: %d records, %.0f/s\n", name, n, float64(n-last)/lineEvery.Seconds())
			last = n
		}
	}
}

// end takes the bar away, or stops the lines.
func (m *meter) end() {
	close(m.stop)
	<-m.done
	if m.bars == nil {
		return
	}
	m.bar.SetTotal(-1, true) // complete where it is
	m.bars.Wait()
}
