package suite

import (
	"context"
	"errors"

	"github.com/dianemo/dianemo"
)

// ErrBoom is a handler's error that means nothing.
var ErrBoom = errors.New("boom")

// Returns is a handler that returns err at once.
func Returns(err error) func(context.Context, *dianemo.Job[Args]) error {
	return func(context.Context, *dianemo.Job[Args]) error { return err }
}

// Sees is a handler that sends on what it gets.
func Sees(into chan<- dianemo.Job[Args]) func(context.Context, *dianemo.Job[Args]) error {
	return func(_ context.Context, job *dianemo.Job[Args]) error {
		into <- *job
		return nil
	}
}
