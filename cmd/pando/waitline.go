package main

import (
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

const (
	// waitLineColumns is how much of a line is shown that is drawn again: one that
	// is wider than the terminal would stay.
	waitLineColumns = 79
	// redrawEvery is how often a line is drawn again where somebody looks.
	redrawEvery = 200 * time.Millisecond
)

// waitLine says what is waited for: one line that is drawn again on a terminal, and
// elsewhere a line now and then. Nothing with JSON.
type waitLine struct {
	w      io.Writer
	redraw bool
	last   string
	at     time.Time
}

func (c *cli) newWaitLine() *waitLine {
	if c.output == "json" {
		return &waitLine{}
	}
	return &waitLine{w: c.err, redraw: isTerminal(c.err), at: time.Now().Add(-redrawEvery)} // what is over soon needs no line
}

// show draws the line, or prints it if that is due.
func (l *waitLine) show(now time.Time, text string) {
	every := lineEvery
	if l.redraw {
		every = redrawEvery
	}
	switch {
	case l.w == nil || text == l.last || now.Sub(l.at) < every:
		return
	case l.redraw:
		fmt.Fprintf(l.w, "\r%s\x1b[K", cutTo(text, waitLineColumns))
	default:
		fmt.Fprintln(l.w, text)
	}
	l.last, l.at = text, now
}

// end takes a drawn line away.
func (l *waitLine) end() {
	if l.redraw && l.last != "" {
		fmt.Fprint(l.w, "\r\x1b[K")
	}
}

// cutTo is s, or the beginning of it and three dots.
func cutTo(s string, columns int) string {
	if utf8.RuneCountInString(s) <= columns {
		return s
	}
	return string([]rune(s)[:columns-3]) + "..."
}
