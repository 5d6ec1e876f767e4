package mailbox

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// supervisor records what a strategy asks for.
type supervisor struct{ restarted, stopped []string }

func (s *supervisor) Children() []*actor.PID       { return nil }
func (s *supervisor) EscalateFailure(any, any)     { panic("escalated") }
func (s *supervisor) ResumeChildren(...*actor.PID) { panic("resumed") }
func (s *supervisor) RestartChildren(p ...*actor.PID) {
	s.restarted = append(s.restarted, p[0].Id)
}
func (s *supervisor) StopChildren(p ...*actor.PID) { s.stopped = append(s.stopped, p[0].Id) }

func TestDelay(t *testing.T) {
	s := NewBackoff(BackoffConfig{Base: 100 * time.Millisecond, Cap: time.Second})
	for n, want := range map[int]time.Duration{1: 100, 2: 200, 3: 400, 4: 800, 5: 1000, 30: 1000, 31: 1000, 1 << 40: 1000} {
		if got := s.delay(n, 0); got != want*time.Millisecond {
			t.Errorf("delay %d: %v", n, got)
		}
	}
	if got := s.delay(1, 0.999); got <= 100*time.Millisecond || got > 125*time.Millisecond {
		t.Errorf("with jitter: %v", got)
	}
	if got := NewBackoff(BackoffConfig{Base: time.Hour, Cap: 1 << 62}).delay(29, 0); got != 1<<62 {
		t.Errorf("on overflow: %v", got)
	}
}

func TestWindowForgivesOldFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		system, sup := quiet(), &supervisor{}
		s := NewBackoff(BackoffConfig{Limit: 2, Window: time.Minute})
		pid := actor.NewPID("a", "x")
		for range 20 { // two a minute, for ten minutes
			s.HandleFailure(system, sup, pid, nil, "r", nil)
			time.Sleep(30 * time.Second)
			synctest.Wait()
		}
		if len(sup.restarted) != 20 || len(sup.stopped) != 0 {
			t.Errorf("%d restarts, stopped %v", len(sup.restarted), sup.stopped)
		}
		if n := len(s.history["x"]); n > 2 {
			t.Errorf("%d failures remembered", n)
		}
		s.HandleFailure(system, sup, actor.NewPID("a", "other"), nil, "r", nil)
		time.Sleep(2 * time.Minute)
		s.HandleFailure(system, sup, pid, nil, "r", nil)
		if len(s.history) != 1 {
			t.Errorf("histories of %d children are kept", len(s.history))
		}
		s.Close()
	})
}

func TestFatalIsNotRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		damage := errors.New("damage")
		var told []Failure
		system, sup := quiet(), &supervisor{}
		s := NewBackoff(BackoffConfig{
			Fatal:    func(reason any) bool { err, _ := reason.(error); return errors.Is(err, damage) },
			OnGiveUp: func(f Failure) { told = append(told, f) },
		})
		s.HandleFailure(system, sup, actor.NewPID("a", "x"), nil, &Panic{Value: damage}, "message")
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(sup.restarted) != 0 || len(sup.stopped) != 1 || len(told) != 1 || told[0].Message != "message" {
			t.Errorf("%+v, told %+v", sup, told)
		}
	})
}

// TestNoRestartAfterCloseOrForget: a restart that was waiting must not meet an
// actor that is being stopped.
func TestNoRestartAfterCloseOrForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		system, sup := quiet(), &supervisor{}
		s := NewBackoff(BackoffConfig{})
		a, b := actor.NewPID("a", "x"), actor.NewPID("a", "y")
		s.HandleFailure(system, sup, a, nil, "r", nil)
		s.Forget(a)
		s.HandleFailure(system, sup, b, nil, "r", nil)
		s.Close()
		s.HandleFailure(system, sup, b, nil, "r", nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(sup.restarted) != 0 {
			t.Errorf("restarted %v", sup.restarted)
		}
	})
}
