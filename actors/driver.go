package actors

import "iter"

// machine is a pure state machine: the protocol of a replica, a split, a copy.
// It has no clock, goroutine or I/O; whoever owns it feeds it events and does
// the work that it asks for. An error of Step says that the event made no sense
// and was ignored as a whole; the machine goes on.
type machine[E, W any] interface {
	Step(E) error
	Ready() iter.Seq[W]
}

// driver runs a machine for the actor that owns it. Events are collected with
// post and given to the machine by turn, which then has the work done by do. Do
// may post further events; the turn ends when none are left. So everything that
// arrived between two turns is one batch for the machine.
type driver[E, W any] struct {
	machine machine[E, W]
	do      func(W) error
	// refused is told of an event that the machine refused. If it returns an
	// error the turn ends with it.
	refused func(E, error) error

	events []E
	spare  []E
}

func (d *driver[E, W]) post(e E) { d.events = append(d.events, e) }

// turn empties the queue of events. After an error, which is one of do or of
// refused, the machine must be thrown away.
func (d *driver[E, W]) turn() error {
	for len(d.events) > 0 {
		batch := d.events
		d.events = d.spare[:0]
		for _, e := range batch {
			if err := d.machine.Step(e); err != nil {
				if err = d.refused(e, err); err != nil {
					return err
				}
			}
		}
		clear(batch)
		d.spare = batch[:0]
		for w := range d.machine.Ready() {
			if err := d.do(w); err != nil {
				return err
			}
		}
	}
	return nil
}
