package dianemo

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// Unique makes a job the only one of its kind with this key, for as long as it
// holds the key: until it has ended or has been started, as chosen, and at most
// for For. A second job is refused with an [ExistsError] that has the first one's
// id, or replaces it.
//
// The key is not a lock that could stay: it is held by a job that exists and is
// in such a state. Whatever ends or deletes that job frees the key at the same
// moment. A requeue takes it again, and is refused if another has it. A job that
// was skipped and waits for its parents after all takes it again, too, and goes on
// without it if another has it.
type Unique struct {
	// Key is 1 to MaxKey letters, digits and . _ - / @ +. Another kind's equal
	// keys are others.
	Key string
	// Until is when the key is free again; default UntilFinished.
	Until UniqueUntil
	// For is how long the key is held at most, from when the store accepts the
	// job; default without a limit, at most 100 years. When it is over, the job
	// itself goes on.
	For time.Duration
	// Replace takes the key from a job that has not been started, which ends
	// cancelled, with reason "replaced". If it was started, the new one is refused.
	Replace bool
}

// UniqueUntil says when a job lets go of its unique key.
type UniqueUntil int

const (
	// UntilFinished: when it has ended, however.
	UntilFinished UniqueUntil = iota
	// UntilStarted: when it is first started, or has ended. A job that was given
	// back without having been started holds it again, unless another one has
	// taken it. So one job may wait while another one runs.
	UntilStarted
)

func (u Unique) check(id string) error {
	if u == (Unique{}) {
		return nil
	}
	if err := checkName("Options.Unique.Key", u.Key, MaxKey); err != nil {
		return err
	}
	if id != "" {
		return &FieldError{"Options.ID", id, "none where Unique is set, which makes one"}
	}
	if u.Until != UntilFinished && u.Until != UntilStarted {
		return &FieldError{"Options.Unique.Until", int(u.Until), "UntilFinished or UntilStarted"}
	}
	if u.For < 0 || u.For > MaxSpan {
		return &FieldError{"Options.Unique.For", u.For, fmt.Sprintf("a positive duration of at most %d years, or 0 for no limit", MaxSpan/(365*24*time.Hour))}
	}
	return nil
}

// route begins the ids of all jobs of a kind with this key, so that they stand
// in one partition.
func (u Unique) route(kind string) string {
	sum := sha256.Sum256([]byte(kind + ":" + u.Key)) // no kind has a colon
	return hex.EncodeToString(sum[:16])
}
