package history

import (
	"fmt"
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// answer is what linearizable says.
type answer uint8

const (
	legal answer = iota
	illegal
	unfinished
)

// register is the model of one key: its value, or "" while it is absent.
func register() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, input, _ any) (bool, any) {
			value, e := state.(string), input.(*Event)
			switch e.Kind {
			case Write:
				return true, e.Value
			case Read:
				return e.Got == value, value
			}
			if e.Outcome != OutcomeOK { // a CAS that nobody knows the outcome of
				if value == e.Old {
					return true, e.Value
				}
				return true, value
			}
			if e.Swapped != (value == e.Old) {
				return false, value
			}
			if e.Swapped {
				return true, e.Value
			}
			return true, value
		},
	}
}

// linearizable searches for an order of one key's operations that explains
// every answer.
func linearizable(events []Event, limit time.Duration) answer {
	history := make([]porcupine.Operation, 0, len(events))
	seen := observed(events)
	for i := range events {
		e := &events[i]
		end := int64(e.Ended)
		switch {
		case e.Outcome == OutcomeRefused:
			continue
		case e.Outcome != OutcomeOK:
			at, ok := seen.first[e.Value]
			if e.Kind == Read || !ok && !seen.refusals {
				continue
			}
			end = math.MaxInt64
			if ok {
				end = int64(at)
			}
		}
		history = append(history, porcupine.Operation{
			ClientId: e.Client, Input: e, Call: int64(e.Called), Return: end,
		})
	}
	switch porcupine.CheckOperationsTimeout(register(), history, limit) {
	case porcupine.Ok:
		return legal
	case porcupine.Illegal:
		return illegal
	}
	return unfinished
}

// observations is what the answers of a key tell about operations with an
// unknown outcome. It keeps the search short: each open end doubles it.
type observations struct {
	// first is the earliest end of an answer that shows a value. An unknown
	// operation whose value was seen took effect before that end, since values
	// are unique. One whose value was never seen explains nothing and is left
	// out: without it every other operation has the same place in the order.
	first map[string]uint64
	// refusals: some CAS was answered "not swapped", and an unseen value may be
	// the reason, so the rule of leaving out does not hold.
	refusals bool
}

func observed(events []Event) observations {
	o := observations{first: map[string]uint64{}}
	for _, e := range events {
		switch {
		case e.Outcome != OutcomeOK:
		case e.Kind == Read:
			o.see(e.Got, e.Ended)
		case e.Kind == CAS && e.Swapped:
			o.see(e.Old, e.Ended)
		case e.Kind == CAS:
			o.refusals = true
		}
	}
	// An unknown CAS whose value was seen has itself seen its old value.
	for changed := true; changed; {
		changed = false
		for _, e := range events {
			at, ok := o.first[e.Value]
			if ok && e.Kind == CAS && e.Outcome != OutcomeOK {
				changed = o.see(e.Old, at) || changed
			}
		}
	}
	return o
}

// see notes that an answer at the given time shows the value, and reports
// whether that is earlier than known.
func (o *observations) see(value string, at uint64) bool {
	if was, ok := o.first[value]; value == "" || ok && was <= at {
		return false
	}
	o.first[value] = at
	return true
}

// plain looks for answers that are wrong by themselves, whatever the order of
// the rest, and names the first. It finds most violations at once, and in
// words; the search for an order takes long exactly when there is none.
func plain(events []Event) string {
	seen := observed(events)
	writes := map[string]Event{}
	for _, e := range events {
		if e.Kind == Write || e.Kind == CAS {
			writes[e.Value] = e
		}
	}
	for _, e := range events {
		if e.Kind != Read || e.Outcome != OutcomeOK {
			continue
		}
		w, known := writes[e.Got]
		switch {
		case e.Got != "" && !known:
			return fmt.Sprintf("client %d read %q, which nobody wrote", e.Client, e.Got)
		case known && w.Outcome == OutcomeRefused:
			return fmt.Sprintf("client %d read %q, a write that was refused", e.Client, e.Got)
		case known && w.Kind == CAS && w.Outcome == OutcomeOK && !w.Swapped:
			return fmt.Sprintf("client %d read %q, which was answered as not swapped", e.Client, e.Got)
		case known && w.Called > e.Ended:
			return fmt.Sprintf("client %d read %q before it was written", e.Client, e.Got)
		}
		// An absent key is what there was before everything: w is zero then.
		var since uint64
		if known {
			since = seen.effective(w)
		}
		for _, by := range events {
			if end := seen.effective(by); by.Called > since && end < e.Called {
				return fmt.Sprintf("client %d read %q at %d, though client %d's %s of %q, which began after it at %d, had taken effect by %d",
					e.Client, e.Got, e.Called, by.Client, by.Kind, by.Value, by.Called, end)
			}
		}
	}
	return ""
}

// effective returns the time by which a change certainly had taken effect:
// when it was acknowledged, or when its value was first seen.
func (o *observations) effective(e Event) uint64 {
	end := uint64(math.MaxUint64)
	if e.Outcome == OutcomeOK && (e.Kind == Write || e.Kind == CAS && e.Swapped) {
		end = e.Ended
	}
	if at, ok := o.first[e.Value]; ok && e.Kind != Read {
		end = min(end, at)
	}
	return end
}
