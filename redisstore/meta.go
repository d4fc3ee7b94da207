package redisstore

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// meta is a job's mutable fields, in the order in which common.lua writes
// them. Only the scripts write it.
type meta struct {
	state, reason       string
	ended, epoch        int64
	peer, lane          string
	due, started        int64
	fails, reruns, runs int
	maxReruns, weight   int
	unique              string // the slot, as in common.lua
}

const metaFields = 15

// maxEpoch is far ahead of all clocks, and so are those that follow it of what a double has
// exactly, as Redis keeps scores.
const maxEpoch = 9e15

// corruptError: a record that no version of this library has written.
type corruptError struct{ record string }

func (e *corruptError) Error() string {
	return fmt.Sprintf("redisstore: a record is corrupt: %.60q", e.record)
}

// parseMeta refuses just what read in common.lua does, so that Go never sends a
// script after a job that it will not touch. It returns dianemo.ErrNewer or a corruptError.
func parseMeta(s string) (meta, error) {
	version, rest, ok := strings.Cut(s, "|")
	if n, good := digits(version, 1, 18); ok && good && n > layoutVersion {
		return meta{}, dianemo.ErrNewer
	}
	f := strings.SplitN(rest, "|", metaFields+1)
	if version != "1" || len(f) != metaFields+1 {
		return meta{}, &corruptError{s}
	}
	m := meta{state: f[0], reason: f[1], peer: f[4], lane: f[5], unique: f[14]}
	bad := false
	read := func(field, least, most int) int64 {
		n, good := digits(f[field], least, most)
		bad = bad || !good
		return n
	}
	m.ended, m.epoch, m.started = read(2, 0, 16), read(3, 1, 16), read(7, 0, 16)
	if early, ok := strings.CutPrefix(f[6], "-"); ok {
		f[6] = early
		m.due = -read(6, 1, 15)
	} else {
		m.due = read(6, 1, 16)
	}
	m.fails, m.reruns, m.runs = int(read(8, 1, 9)), int(read(9, 1, 9)), int(read(10, 1, 9))
	m.maxReruns, m.weight, _ = int(read(11, 0, 9)), int(read(12, 0, 9)), read(13, 0, 9)
	bad = bad || m.epoch > maxEpoch
	switch state := dianemo.State(m.state); {
	case state == dianemo.Scheduled, state == dianemo.Running, state == dianemo.Blocked, state.Finished():
	default:
		bad = true
	}
	if _, ok := parseBase(m.lane); !ok || bad {
		return m, &corruptError{s}
	}
	return m, nil
}

// digits reads a number of that many digits, without a sign; none are 0.
func digits(s string, least, most int) (int64, bool) {
	if len(s) < least || len(s) > most {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n, true
}

// base is the lane in which the job waits, or would.
func (m *meta) base() (dianemo.Lane, bool) {
	lane, ok := parseBase(m.lane)
	lane.Again = m.runs > 0
	return lane, ok
}

// uniqueField is what a record says of its unique slot: see slot_of in
// common.lua.
func uniqueField(kind string, u dianemo.Unique) string {
	until := "f"
	if u.Until == dianemo.UntilStarted {
		until = "s"
	}
	return until + "," + strconv.FormatInt(millisUp(u.For), 10) + "," + slotName(kind, u.Key)
}

// uniqueKey is the key in a record's unique field; "" if it has none.
func uniqueKey(field string) string {
	_, key, _ := strings.Cut(field, ":") // neither until, for nor the kind has a colon
	return key
}

// stampSize is the length of what enqueue.lua puts behind the spec: the time,
// in ms and 13 digits, until the year 2286.
const stampSize = 13

func splitSpec(stored string) ([]byte, time.Time, error) {
	if len(stored) < stampSize {
		return nil, time.Time{}, errors.New("its spec is cut short")
	}
	at := len(stored) - stampSize
	ms, ok := digits(stored[at:], stampSize, stampSize)
	if !ok {
		return nil, time.Time{}, fmt.Errorf("its spec has no time: %q", stored[at:])
	}
	return []byte(stored[:at]), time.UnixMilli(ms), nil
}
