package sim

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

const (
	maxLine   = 4096
	maxFaults = 100_000
)

// ParsePlan reads what MarshalText prints. Lines that are empty or begin with #
// are left out. An error names the line.
func ParsePlan(text []byte) (*Plan, error) {
	s, err := ParseStory(text)
	if err != nil {
		return nil, err
	}
	if s.Expect != "" {
		return nil, errors.New("a plan expects nothing: the line that does belongs to a story")
	}
	return &s.Plan, nil
}

// Story is a plan and how it ends.
type Story struct {
	Plan
	// Expect is "pass", the name of the checker that objects, or empty if the
	// text does not say.
	Expect string
}

// Pass is what a story expects that ends well.
const Pass = "pass"

// ParseStory reads a plan that may have a line "expect pass" or "expect
// <checker>".
func ParseStory(text []byte) (*Story, error) {
	r := planReader{seen: map[string]bool{}}
	r.story.Knobs = Calm()
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(make([]byte, maxLine), maxLine)
	n := 0
	for lines.Scan() {
		n++
		words := strings.Fields(lines.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if err := r.line(words); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n+1, err)
	}
	if !r.seen["seed"] {
		return nil, errors.New("the plan has no seed")
	}
	r.story.sortFaults()
	if err := r.story.Validate(); err != nil {
		return nil, err
	}
	return &r.story, nil
}

// planReader reads a plan line by line.
type planReader struct {
	story Story
	seen  map[string]bool
}

func (r *planReader) line(words []string) error {
	key := words[0]
	switch key {
	case "at":
		f, err := parseFault(words[1:])
		r.story.Faults = append(r.story.Faults, f)
		return r.bounded(len(r.story.Faults), err)
	case "point":
		f, err := parsePoint(words[1:])
		r.story.Points = append(r.story.Points, f)
		return r.bounded(len(r.story.Points), err)
	}
	if len(words) != 2 {
		return fmt.Errorf("%q wants one value, not %d", key, len(words)-1)
	}
	if r.seen[key] {
		return fmt.Errorf("%q is there twice", key)
	}
	r.seen[key] = true
	value := words[1]
	var err error
	switch key {
	case "seed":
		r.story.Seed, err = strconv.ParseUint(value, 10, 64)
	case "shape":
		r.story.Shape = value
	case "expect":
		r.story.Expect = value
	case "planted":
		r.story.Planted, err = planted.Parse(value)
	default:
		err = r.knob(key, value)
	}
	return err
}

func (r *planReader) bounded(n int, err error) error {
	if err == nil && n > maxFaults {
		err = fmt.Errorf("more than %d faults", maxFaults)
	}
	return err
}

func (r *planReader) knob(key, value string) error {
	v := reflect.ValueOf(&r.story.Knobs).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if knobName(f.Name) != key {
			continue
		}
		if err := setKnob(v.Field(i), value); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		return nil
	}
	return fmt.Errorf("there is no knob %q", key)
}

// options are the words behind what a line has to have: "for 1s arg 7".
func options(words []string, into map[string]func(string) error) error {
	for len(words) > 0 {
		set := into[words[0]]
		if set == nil {
			return fmt.Errorf("%q is not understood", words[0])
		}
		if len(words) == 1 {
			return fmt.Errorf("%q wants a value", words[0])
		}
		if err := set(words[1]); err != nil {
			return fmt.Errorf("%s: %w", words[0], err)
		}
		delete(into, words[0])
		words = words[2:]
	}
	return nil
}

func timeInto(t *partition.Time) func(string) error {
	return func(s string) (err error) {
		*t, err = time.ParseDuration(s)
		return err
	}
}

// parseFault reads "1.5s cut 0 2 for 300ms arg 7".
func parseFault(words []string) (Fault, error) {
	f := Fault{Node: fault.None, Other: fault.None}
	if len(words) < 2 {
		return f, errors.New("a fault has a time and a class")
	}
	var err error
	if f.At, err = time.ParseDuration(words[0]); err != nil {
		return f, err
	}
	if f.Class, err = fault.Parse(words[1]); err != nil {
		return f, err
	}
	words = words[2:]
	targets := []*fault.Target{&f.Node, &f.Other}[:f.Class.On()]
	for _, t := range targets {
		if len(words) == 0 {
			return f, fmt.Errorf("%s befalls %d nodes", f.Class, len(targets))
		}
		if *t, err = fault.ParseTarget(words[0]); err != nil {
			return f, err
		}
		words = words[1:]
	}
	err = options(words, map[string]func(string) error{
		"for": timeInto(&f.For),
		"arg": func(s string) error {
			n, err := strconv.ParseInt(s, 10, 64)
			f.Arg = uint64(n)
			return err
		},
	})
	return f, err
}

// parsePoint reads "replica.promised 2 #3 power-cut after 1ms for 20ms".
func parsePoint(words []string) (PointFault, error) {
	var f PointFault
	if len(words) < 4 {
		return f, errors.New("a fault at a point has a point, a node, an occurrence and a class")
	}
	f.Point = words[0]
	var err error
	if f.Node, err = strconv.Atoi(words[1]); err != nil {
		return f, err
	}
	number, ok := strings.CutPrefix(words[2], "#")
	if !ok {
		return f, fmt.Errorf("occurrence %q does not begin with #", words[2])
	}
	if f.Occurrence, err = strconv.ParseUint(number, 10, 64); err != nil {
		return f, err
	}
	if f.Class, err = fault.Parse(words[3]); err != nil {
		return f, err
	}
	err = options(words[4:], map[string]func(string) error{"after": timeInto(&f.After), "for": timeInto(&f.For)})
	return f, err
}

// Validate reports what is wrong with a plan.
func (p *Plan) Validate() error {
	if !isWord(p.Shape) && p.Shape != "" {
		return fmt.Errorf("shape %q is not a word", p.Shape)
	}
	if err := p.Knobs.validate(); err != nil {
		return err
	}
	if len(p.Faults) > maxFaults || len(p.Points) > maxFaults {
		return fmt.Errorf("more than %d faults", maxFaults)
	}
	for i := range p.Faults {
		if err := p.Faults[i].validate(&p.Knobs); err != nil {
			return fmt.Errorf("fault %q: %w", p.Faults[i].String(), err)
		}
		if i > 0 && p.Faults[i].At < p.Faults[i-1].At {
			return fmt.Errorf("fault %q: before the one that stands before it", p.Faults[i].String())
		}
	}
	for i := range p.Points {
		if err := p.Points[i].validate(&p.Knobs); err != nil {
			return fmt.Errorf("fault %q: %w", p.Points[i].String(), err)
		}
	}
	return nil
}

func (f *Fault) validate(k *Knobs) error {
	switch {
	case !f.Class.Valid():
		return errors.New("no such class")
	case f.At < 0 || f.For < 0 || f.At > maxTime || f.For > maxTime:
		return fmt.Errorf("a time is not from 0 to %s", maxTime)
	}
	for i, t := range []fault.Target{f.Node, f.Other} {
		if t != fault.None && i >= int(f.Class.On()) {
			return errors.New("it befalls fewer nodes than it names")
		}
		if n, ok := t.Node(); ok && n >= k.Nodes {
			return fmt.Errorf("there is no node %d of %d", n, k.Nodes)
		}
		if r, group, ok := t.Role(); ok && (!r.Valid() || group >= k.Groups) {
			return fmt.Errorf("there is no group %d of %d", group, k.Groups)
		}
	}
	if f.Arg != 0 && f.Class.Arg() == "" {
		return fmt.Errorf("%s takes no argument", f.Class)
	}
	return nil
}

func (f *PointFault) validate(k *Knobs) error {
	switch {
	case !isWord(f.Point) || strings.HasPrefix(f.Point, "#"):
		return errors.New("the point has no name")
	case f.Node < 0 || f.Node >= k.Nodes:
		return fmt.Errorf("there is no node %d of %d", f.Node, k.Nodes)
	case f.Occurrence == 0:
		return errors.New("occurrences count from 1")
	case !f.Class.Valid() || f.Class.On() == fault.OnWorld:
		return errors.New("it is not of a class that befalls a node")
	case f.After < 0 || f.For < 0 || f.After > maxTime || f.For > maxTime:
		return fmt.Errorf("a time is not from 0 to %s", maxTime)
	}
	return nil
}

// isWord reports whether s survives as a word of a plan.
func isWord(s string) bool {
	words := strings.Fields(s)
	return len(words) == 1 && words[0] == s && len(s) < maxLine/4
}

const maxTime = 24 * time.Hour

// validate checks every knob against its limits: the tag of its field, or from 0
// to 1 for shares, to a day for times and to 2^40 for numbers.
func (k *Knobs) validate() error {
	v := reflect.ValueOf(k).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		var x float64
		least, most := 0.0, 1.0
		switch y := v.Field(i).Interface().(type) {
		case partition.Time:
			x, most = float64(y), float64(maxTime)
		case float64:
			x = y
		case int:
			x, most = float64(y), 1<<40
		case string:
			if y != "" && !isWord(y) {
				return fmt.Errorf("%s %q is not a word", knobName(f.Name), y)
			}
			continue
		default:
			continue
		}
		if tag := f.Tag.Get("limits"); tag != "" {
			lo, hi, _ := strings.Cut(tag, "..")
			var errLo, errHi error
			least, errLo = strconv.ParseFloat(lo, 64)
			most, errHi = strconv.ParseFloat(hi, 64)
			if err := errors.Join(errLo, errHi); err != nil {
				return fmt.Errorf("limits %q of %s: %w", tag, f.Name, err)
			}
		}
		if math.IsNaN(x) || x < least || x > most {
			return fmt.Errorf("%s %s is not from %g to %g", knobName(f.Name), knobText(v.Field(i)), least, most)
		}
	}
	return k.validateTogether()
}

// validateTogether checks knobs against each other.
func (k *Knobs) validateTogether() error {
	switch {
	case k.Replicas > k.Nodes:
		return fmt.Errorf("replicas %d are more than nodes %d", k.Replicas, k.Nodes)
	case k.DelayMin > k.DelayMax:
		return fmt.Errorf("delay-min %s is above delay-max %s", k.DelayMin, k.DelayMax)
	case k.SyncMin > k.SyncMax:
		return fmt.Errorf("sync-min %s is above sync-max %s", k.SyncMin, k.SyncMax)
	case k.RetryMin > k.RetryMax:
		return fmt.Errorf("retry-min %s is above retry-max %s", k.RetryMin, k.RetryMax)
	}
	for _, name := range strings.Split(k.PointClasses, ",") {
		if name == "" {
			continue
		}
		if _, err := fault.Parse(name); err != nil {
			return fmt.Errorf("point-classes: %w", err)
		}
	}
	return nil
}
