package exhaust

import (
	"fmt"
	"reflect"
	"strings"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// Replay goes the way of a violation again, and what is left of it without faults, and
// returns the violation that is found; nil if there is none any more. The error says
// which action cannot happen: the code has changed since.
func Replay(c Config, v *Violation) (*Violation, error) {
	w, why, err := begin(c)
	if err != nil {
		return nil, err
	}
	if why != "" {
		return w.violation(why, nil, nil), nil
	}
	x := &w.first
	for i, text := range v.Path[:len(v.Path)-v.Healing] {
		a, ok := w.named(x, text)
		if !ok {
			return nil, partition.Errorf(partition.CodeInvalid, "action %d, %q, cannot happen; what can is %s", i+1, text, w.choices(x))
		}
		if why := w.advance(x, a); why != "" {
			found := w.violation(why, nil, nil)
			found.Path = v.Path[:i+1]
			return found, nil
		}
	}
	if v.Healing == 0 {
		return nil, nil
	}
	way, why := w.calm(x)
	if why == "" {
		why = w.agree(x)
	}
	if why == "" {
		return nil, nil
	}
	return w.violation(why, nil, way), nil
}

// named finds the action that these words tell.
func (w *walk) named(x *world, text string) (action, bool) {
	for _, a := range w.options(nil, x) {
		if w.tell(a) == text {
			return a, true
		}
	}
	return 0, false
}

func (w *walk) choices(x *world) string {
	var list []string
	for _, a := range w.options(nil, x) {
		list = append(list, fmt.Sprintf("%q", w.tell(a)))
	}
	return strings.Join(list, ", ")
}

// GoTest is the source of a test that goes the way of a violation, to be kept with
// the change that mends it.
func (v *Violation) GoTest(name string, c Config) string {
	var b strings.Builder
	fmt.Fprintf(&b, "// %s: %s.\nfunc %s(t *testing.T) {\n\tv := &Violation{Healing: %d, Path: []string{\n", v.What, v.Why, name, v.Healing)
	for _, s := range v.Path {
		fmt.Fprintf(&b, "\t\t%q,\n", s)
	}
	fmt.Fprintf(&b, "\t}}\n\tif got, err := Replay(%s, v); err != nil || got != nil {\n\t\tt.Fatalf(\"%%v\\n%%v\", err, got)\n\t}\n}\n", c.source())
	return b.String()
}

// source is a Config as Go writes it, without what bounds a walk.
func (c Config) source() string {
	c.MaxStates, c.MaxTime, c.HealEvery, c.Planted = 0, 0, 0, planted.Set{}
	var parts []string
	for v, i := reflect.ValueOf(c), 0; i < v.NumField(); i++ {
		if f := v.Field(i); !f.IsZero() {
			parts = append(parts, fmt.Sprintf("%s: %v", v.Type().Field(i).Name, f))
		}
	}
	return "Config{" + strings.Join(parts, ", ") + "}"
}
