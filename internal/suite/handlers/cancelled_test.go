package handlers_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// unsaid is a store whose messages get lost.
type unsaid struct{ dianemo.Store }

func (unsaid) Tell(context.Context, string, dianemo.Message) error { return nil }

// The run has not heard of it, and is its job's last.
func TestACancelledJobEndsCancelledWhateverItsLastRunReturnsButSuccessAndFail_Long(t *testing.T) {
	t.Parallel()
	for how, want := range map[string]dianemo.State{"error": dianemo.Cancelled, "panic": dianemo.Cancelled, "retry": dianemo.Cancelled,
		"snooze": dianemo.Cancelled, "shutdown": dianemo.Cancelled, "fail": dianemo.Failed, "success": dianemo.Succeeded} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			suite.Each(t, func(t *testing.T, store dianemo.Store) {
				began, goOn := make(chan struct{}, 1), make(chan struct{})
				var kind dianemo.Kind[suite.Args]
				p := suite.Start(t, store, dianemo.Config{Finish: dianemo.None}, func(p *dianemo.Peer) {
					kind = suite.Handle(t, p, "kind", dianemo.Policy{Retries: dianemo.None, Reruns: dianemo.None}, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
						began <- struct{}{}
						if how == "shutdown" {
							<-ctx.Done()
							return ctx.Err()
						}
						<-goOn
						switch how {
						case "panic":
							panic("boom")
						case "retry":
							return dianemo.RetryIn(0, errors.New("boom"))
						case "snooze":
							return dianemo.Snooze(0)
						case "fail":
							return dianemo.Fail(errors.New("boom"))
						case "success":
							return nil
						}
						return errors.New("boom")
					})
				})
				c := suite.Client(t, unsaid{store})
				id := suite.Enqueue(t, p, kind, dianemo.Options{})
				suite.Receive(t, began)
				require.NoError(t, c.Cancel(t.Context(), id))
				if how == "shutdown" {
					require.NoError(t, p.Stop())
				}
				close(goOn)
				require.Equal(t, want, p.Next().State)
				require.Equal(t, want, suite.Get(t, c, id).State)
			})
		})
	}
}
