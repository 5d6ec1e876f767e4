package main

import (
	"fmt"
	"time"

	"pando.dev/pando/actors"
)

// taskMeter tells how far a task is that is waited for: what is done, the bytes of
// copies, how fast they come, how long the rest will take, and what is waited for.
type taskMeter struct {
	line  *waitLine
	began time.Time // when bytes were seen first
	first uint64    // how many
	last  uint64    // when the rate was worked out last
	at    time.Time // when that was
	text  string
}

// rateHolds is how long a rate is shown while no bytes are reported: they are told
// about once a second.
const rateHolds = 5 * time.Second

// bytesOf are the bytes that a task, or the steps below it, have copied of all. A
// step that is done has copied what it was planned with.
func bytesOf(t actors.TaskInfo, all []actors.TaskInfo) (done, total uint64) {
	steps := actors.StepsOf(all, t.ID)
	if len(steps) == 0 {
		steps = []actors.TaskInfo{t}
	}
	for _, s := range steps {
		if s.Kind != "move" {
			continue
		}
		size := max(s.Bytes, s.OfUnits)
		total += size
		switch {
		case s.Succeeded():
			done += size
		case s.Open():
			done += min(s.Units, size)
		}
	}
	return done, total
}

// show draws how far the task is.
func (m *taskMeter) show(now time.Time, t actors.TaskInfo, all []actors.TaskInfo) {
	text := fmt.Sprintf("%s, %s: %s", t.ID, t.Kind, stateText(t))
	if steps := actors.StepsOf(all, t.ID); len(steps) > 0 {
		text += fmt.Sprintf(", %d of %d steps", t.Units, t.OfUnits)
	}
	done, total := bytesOf(t, all)
	if total > 0 {
		text += fmt.Sprintf(", %s of %s", bytesText(done), bytesText(total))
	}
	text += m.rate(now, done, total)
	if why := waitsFor(t, all); why != "" {
		text += ": " + why
	}
	m.line.show(now, text)
}

// rate is how fast the bytes come, and how long the rest will take.
func (m *taskMeter) rate(now time.Time, done, total uint64) string {
	if m.began.IsZero() {
		m.began, m.first = now, done
	}
	passed := now.Sub(m.began).Seconds()
	switch {
	case done <= m.first || passed <= 0:
		return ""
	case done == m.last && now.Sub(m.at) < rateHolds:
		return m.text
	}
	perSecond := float64(done-m.first) / passed
	text := fmt.Sprintf(", %s/s", bytesText(uint64(perSecond)))
	if left := total - min(done, total); left > 0 {
		text += fmt.Sprintf(", %s left", time.Duration(float64(left)/perSecond*float64(time.Second)).Round(time.Second))
	}
	m.last, m.at, m.text = done, now, text
	return text
}

// waitsFor is what a task, or the first of its steps that is under way, waits for.
func waitsFor(t actors.TaskInfo, all []actors.TaskInfo) string {
	for _, s := range actors.StepsOf(all, t.ID) {
		if s.Open() && s.Phase != "" {
			return fmt.Sprintf("%s %s", whatText(s), s.Phase)
		}
	}
	return t.Why
}
