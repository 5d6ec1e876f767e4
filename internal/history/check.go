package history

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// maxKeyTime bounds the search of one key when the context sets no nearer end.
// See the package comment for what keeps it short.
const maxKeyTime = 30 * time.Second

// Check judges everything recorded so far. What it cannot finish before the
// context ends is reported as undecided. A list or counter is judged by its
// appends, any other key by its writes, reads and swaps.
func (h *History) Check(ctx context.Context) Report {
	events := h.Events()
	r := Report{Operations: len(events)}
	keys, lists := map[string][]Event{}, map[string][]Event{}
	for _, e := range events {
		switch e.Outcome {
		case OutcomeOK:
			r.OK++
		case OutcomeRefused:
			r.Refused++
		default:
			r.Unknown++
		}
		if e.Kind == Append {
			lists[e.Key] = append(lists[e.Key], e)
		} else {
			keys[e.Key] = append(keys[e.Key], e)
		}
	}
	h.addObserved(lists)
	r.Keys, r.Lists = len(keys), len(lists)
	for _, v := range checkKeys(ctx, keys) {
		r.add(v)
	}
	for _, k := range sortedKeys(lists) {
		for _, v := range h.checkList(k, lists[k]) {
			r.add(verdict{key: k, violation: &v})
		}
	}
	return r
}

// verdict is what became of one key: at most one of the two is set.
type verdict struct {
	key       string
	violation *Violation
	undecided string
}

func (r *Report) add(v verdict) {
	if v.violation != nil {
		r.Violations = append(r.Violations, *v.violation)
	}
	if v.undecided != "" {
		r.Undecided = append(r.Undecided, fmt.Sprintf("%q: %s", v.key, v.undecided))
	}
}

// checkKeys judges the keys on as many goroutines as there are processors and
// returns the verdicts in the order of the keys.
func checkKeys(ctx context.Context, keys map[string][]Event) []verdict {
	names := sortedKeys(keys)
	verdicts := make([]verdict, len(names))
	var next int
	var mu sync.Mutex
	take := func() int {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1
	}
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(names)) {
		wg.Go(func() {
			for i := take(); i < len(names); i = take() {
				verdicts[i] = checkKey(ctx, names[i], keys[names[i]])
			}
		})
	}
	wg.Wait()
	return verdicts
}

// checkKey judges the operations of one key.
func checkKey(ctx context.Context, key string, events []Event) verdict {
	v := verdict{key: key}
	if why := unfit(events); why != "" {
		v.undecided = why
		return v
	}
	if why := plain(events); why != "" {
		v.violation = &Violation{Rule: NotLinearizable, Key: key, Detail: why, Events: events}
		return v
	}
	limit := maxKeyTime
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end))
	}
	if ctx.Err() != nil || limit <= 0 {
		v.undecided = "the time for the check had run out"
		return v
	}
	switch linearizable(events, limit) {
	case legal:
	case illegal:
		v.violation = &Violation{Rule: NotLinearizable, Key: key, Detail: "no order of the operations explains all answers", Events: events}
	case unfinished:
		v.undecided = fmt.Sprintf("%d operations were not judged within %v", len(events), limit)
	}
	return v
}

// unfit returns why the operations of a key cannot be judged, or "".
func unfit(events []Event) string {
	if len(events) > MaxOperations {
		return fmt.Sprintf("%d operations, limit %d: take keys from Window", len(events), MaxOperations)
	}
	written := map[string]bool{}
	for _, e := range events {
		switch e.Kind {
		case Read:
			continue
		case Write, CAS:
		default:
			return fmt.Sprintf("unknown kind of operation %q", e.Kind)
		}
		if e.Value == "" || written[e.Value] {
			return fmt.Sprintf("value %q is empty or written twice: values must be unique", e.Value)
		}
		written[e.Value] = true
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare)
	return keys
}
