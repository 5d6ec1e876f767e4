package link

import (
	"bytes"
	"fmt"
	"reflect"

	"github.com/vmihailenco/msgpack/v5"

	"pando.dev/pando/internal/mpcheck"
	"pando.dev/pando/partition"
)

// Type is a message that actors of different nodes may exchange: a struct of
// fixed fields, sent and received as a pointer. An ID, once used, keeps its
// meaning on the wire.
type Type struct {
	ID uint16
	// New returns a pointer to a new, empty message.
	New func() any
}

// registry knows the types by id and by Go type. It does not change.
type registry struct {
	byID   map[uint16]Type
	byType map[reflect.Type]uint16
}

func newRegistry(types []Type) (*registry, error) {
	r := &registry{byID: make(map[uint16]Type, len(types)), byType: make(map[reflect.Type]uint16, len(types))}
	for _, t := range types {
		if t.New == nil {
			return nil, partition.Errorf(partition.CodeInvalid, "message type %d has no New", t.ID)
		}
		p := reflect.TypeOf(t.New())
		if p == nil || p.Kind() != reflect.Pointer || p.Elem().Kind() != reflect.Struct {
			return nil, partition.Errorf(partition.CodeInvalid, "message type %d is %v, not a pointer to a struct", t.ID, p)
		}
		if _, ok := r.byID[t.ID]; ok {
			return nil, partition.Errorf(partition.CodeInvalid, "message type %d is there twice", t.ID)
		}
		if err := fixed(p.Elem(), nil); err != nil {
			return nil, partition.Errorf(partition.CodeInvalid, "message type %d, %v: %v", t.ID, p, err)
		}
		r.byID[t.ID], r.byType[p] = t, t.ID
	}
	return r, nil
}

// fixed refuses what a decoder would fill with whatever the bytes say, and what
// could nest without end.
func fixed(t reflect.Type, within []reflect.Type) error {
	for _, outer := range within {
		if outer == t {
			return fmt.Errorf("%v contains itself", t)
		}
	}
	switch t.Kind() {
	case reflect.Interface, reflect.Func, reflect.Chan, reflect.UnsafePointer:
		return fmt.Errorf("%v is no fixed type", t)
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return fixed(t.Elem(), within)
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			return fmt.Errorf("%v has keys that are no strings", t)
		}
		return fixed(t.Elem(), within)
	case reflect.Struct:
		for i := range t.NumField() {
			if err := fixed(t.Field(i).Type, append(within, t)); err != nil {
				return fmt.Errorf("field %s: %w", t.Field(i).Name, err)
			}
		}
	}
	return nil
}

// encode returns the type and the body of a message.
func (r *registry) encode(m any) (uint16, []byte, error) {
	id, ok := r.byType[reflect.TypeOf(m)]
	if !ok {
		return 0, nil, partition.Errorf(partition.CodeInvalid, "%T is no message between nodes", m)
	}
	b, err := msgpack.Marshal(m)
	if err != nil {
		return 0, nil, fmt.Errorf("encode %T: %w", m, err)
	}
	return id, b, nil
}

// decode reads a message of a known type; known is false for others. The body
// passes the structural check before the decoder sees it.
func (r *registry) decode(id uint16, body []byte) (m any, known bool, err error) {
	t, ok := r.byID[id]
	if !ok {
		return nil, false, nil
	}
	if err := mpcheck.Check(body); err != nil {
		return nil, true, err
	}
	m = t.New()
	d := msgpack.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields(true)
	if err := d.Decode(m); err != nil {
		return nil, true, corrupt("message of type %d: %v", id, err)
	}
	return m, true, nil
}
