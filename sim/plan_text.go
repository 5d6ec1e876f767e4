package sim

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"

	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

// MarshalText prints the plan: the seed, the knobs that differ from Calm, and
// one fault a line. ParsePlan reads it.
func (p *Plan) MarshalText() ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return p.text(), nil
}

// String is the text of a plan, valid or not.
func (p *Plan) String() string { return string(p.text()) }

func (p *Plan) text() []byte {
	var b []byte
	b = fmt.Appendf(b, "seed %d\n", p.Seed)
	if p.Shape != "" {
		b = fmt.Appendf(b, "shape %s\n", p.Shape)
	}
	if !p.Planted.Empty() {
		b = fmt.Appendf(b, "planted %s\n", p.Planted)
	}
	calm := Calm()
	mine, theirs := reflect.ValueOf(&p.Knobs).Elem(), reflect.ValueOf(&calm).Elem()
	for i := range mine.NumField() {
		if !mine.Field(i).Equal(theirs.Field(i)) {
			b = fmt.Appendf(b, "%s %s\n", knobName(mine.Type().Field(i).Name), knobText(mine.Field(i)))
		}
	}
	for i := range p.Faults {
		b = append(append(b, p.Faults[i].String()...), '\n')
	}
	for i := range p.Points {
		b = append(append(b, p.Points[i].String()...), '\n')
	}
	return b
}

// String is the fault as a line of a plan: "at 1.5s cut 0 2 for 300ms".
func (f *Fault) String() string {
	b := fmt.Appendf(nil, "at %s %s", f.At, f.Class)
	for _, t := range []fault.Target{f.Node, f.Other}[:f.Class.On()] {
		b = fmt.Appendf(b, " %s", t)
	}
	if f.For != 0 {
		b = fmt.Appendf(b, " for %s", f.For)
	}
	if f.Arg != 0 {
		b = fmt.Appendf(b, " arg %d", int64(f.Arg)) // some are signed
	}
	return string(b)
}

// String is the fault as a line of a plan: "point replica.promised 2 #3
// power-cut after 1ms for 20ms".
func (f *PointFault) String() string {
	b := fmt.Appendf(nil, "point %s %d #%d %s", f.Point, f.Node, f.Occurrence, f.Class)
	if f.After != 0 {
		b = fmt.Appendf(b, " after %s", f.After)
	}
	if f.For != 0 {
		b = fmt.Appendf(b, " for %s", f.For)
	}
	return string(b)
}

// knobName is the name of a field as a plan has it: MaxAppendBytes is
// max-append-bytes.
func knobName(field string) string {
	var b strings.Builder
	for i, r := range field {
		if unicode.IsUpper(r) {
			if i > 0 {
				b.WriteByte('-')
			}
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

func knobText(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case partition.Time:
		return x.String()
	case fmt.Stringer:
		return x.String()
	case float64:
		return strconv.FormatFloat(x, 'g', -1, 64)
	default:
		return fmt.Sprint(x)
	}
}

// setKnob reads the text of a knob.
func setKnob(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Interface().(type) {
	case partition.Time:
		d, err := time.ParseDuration(text)
		v.SetInt(int64(d))
		return err
	case int:
		n, err := strconv.Atoi(text)
		v.SetInt(int64(n))
		return err
	case bool:
		b, err := strconv.ParseBool(text)
		v.SetBool(b)
		return err
	case float64:
		x, err := strconv.ParseFloat(text, 64)
		if err == nil && (math.IsNaN(x) || math.IsInf(x, 0)) {
			err = fmt.Errorf("%s is not a number", text)
		}
		v.SetFloat(x)
		return err
	case string:
		v.SetString(text)
		return nil
	}
	return fmt.Errorf("knob of type %s", v.Type())
}
