package actors

import (
	"context"
	"errors"
	"testing"
)

// TestReclaimsStop: a removal of keys of others that is under way has ended when stop
// returns, one that was about to begin does not, and a later one does.
func TestReclaimsStop(t *testing.T) {
	t.Parallel()
	var r reclaims
	r.stop() // none
	ctx := r.begin(t.Context())
	removing, ended := make(chan struct{}), false
	done := make(chan error, 1)
	go func() {
		_, err := r.run(ctx, func() (bool, error) {
			close(removing)
			<-ctx.Done()
			ended = true
			return true, ctx.Err()
		})
		done <- err
	}()
	<-removing
	if r.stop(); !ended {
		t.Error("it goes on when stop has returned")
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	never := func() (bool, error) { t.Error("it removes"); return true, nil }
	if _, err := r.run(ctx, never); err == nil {
		t.Error("one that was stopped begins")
	}
	any, err := r.run(r.begin(t.Context()), func() (bool, error) { return true, nil })
	if !any || err != nil {
		t.Errorf("a later one: %t, %v", any, err)
	}
}
