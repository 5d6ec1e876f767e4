package history

import (
	"cmp"
	"fmt"
	"slices"
)

// addObserved makes sure that a list or counter which was observed is judged,
// though nothing was recorded for it.
func (h *History) addObserved(lists map[string][]Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k := range h.lists {
		lists[k] = append(lists[k], []Event{}...)
	}
	for k := range h.counters {
		lists[k] = append(lists[k], []Event{}...)
	}
}

// checkList judges the appends to one list or counter.
func (h *History) checkList(key string, events []Event) []Violation {
	h.mu.Lock()
	elements, isList := h.lists[key]
	count, isCounter := h.counters[key]
	h.mu.Unlock()
	found := checkSequence(events)
	if isList {
		found = append(found, checkElements(events, elements)...)
	}
	if isCounter {
		found = append(found, checkCount(events, count)...)
	}
	for i := range found {
		found[i].Key, found[i].Events = key, events
	}
	return found
}

// checkElements compares what a list holds with what was appended.
func checkElements(events []Event, elements []string) []Violation {
	var found []Violation
	appended := map[string]Event{}
	for _, e := range events {
		if _, ok := appended[e.Value]; ok {
			found = append(found, Violation{Rule: Doubled, Detail: fmt.Sprintf("the workload appends %q twice", e.Value)})
		}
		appended[e.Value] = e
	}
	times := map[string]int{}
	for i, x := range elements {
		times[x]++
		e, ok := appended[x]
		switch {
		case !ok:
			found = append(found, Violation{Rule: Phantom, Detail: fmt.Sprintf("element %q at %d was never appended", x, i+1)})
		case e.Outcome == OutcomeRefused:
			found = append(found, Violation{Rule: Phantom, Detail: fmt.Sprintf("element %q at %d was refused to client %d", x, i+1, e.Client)})
		case times[x] == 2:
			found = append(found, Violation{Rule: Doubled, Detail: fmt.Sprintf("element %q of client %d is there again at %d", x, e.Client, i+1)})
		}
	}
	for _, e := range events {
		if e.Outcome == OutcomeOK && times[e.Value] == 0 {
			found = append(found, Violation{Rule: Lost, Detail: fmt.Sprintf("element %q, acknowledged to client %d, is not there", e.Value, e.Client)})
		}
	}
	return found
}

// checkCount compares the value of a counter with the increments: at least the
// acknowledged ones, at most those and the unknown ones.
func checkCount(events []Event, count uint64) []Violation {
	var least, most uint64
	for _, e := range events {
		switch e.Outcome {
		case OutcomeOK:
			least++
			most++
		case OutcomeRefused:
		default:
			most++
		}
	}
	switch {
	case count < least:
		return []Violation{{Rule: Lost, Detail: fmt.Sprintf("the counter is %d after %d acknowledged increments", count, least)}}
	case count > most:
		return []Violation{{Rule: Doubled, Detail: fmt.Sprintf("the counter is %d after at most %d increments", count, most)}}
	}
	return nil
}

// checkSequence judges the sequence numbers that were handed out: no two are
// the same, and each is above all that had been acknowledged before its append
// began.
func checkSequence(events []Event) []Violation {
	var told []Event
	for _, e := range events {
		if e.Outcome == OutcomeOK && e.Seq != 0 {
			told = append(told, e)
		}
	}
	byEnd := slices.Clone(told)
	slices.SortFunc(byEnd, func(a, b Event) int { return cmp.Compare(a.Ended, b.Ended) })
	slices.SortFunc(told, func(a, b Event) int { return cmp.Compare(a.Called, b.Called) })
	var found []Violation
	holder := map[uint64]Event{}
	var floor Event // the highest number acknowledged before the append began
	ended := 0
	for _, e := range told {
		for ; ended < len(byEnd) && byEnd[ended].Ended < e.Called; ended++ {
			if byEnd[ended].Seq > floor.Seq {
				floor = byEnd[ended]
			}
		}
		other, taken := holder[e.Seq]
		holder[e.Seq] = e
		switch {
		case taken:
			found = append(found, Violation{Rule: Doubled, Detail: fmt.Sprintf("number %d was given to %q and to %q", e.Seq, other.Value, e.Value)})
		case e.Seq < floor.Seq:
			found = append(found, Violation{Rule: OutOfOrder, Detail: fmt.Sprintf("%q got %d after %q had been acknowledged with %d", e.Value, e.Seq, floor.Value, floor.Seq)})
		}
	}
	return found
}
