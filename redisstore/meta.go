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

// errNewer: written by a newer version of this library, and left alone.
var errNewer = errors.New("redisstore: the record is of a newer version")

func parseMeta(s string) (meta, error) {
	version, rest, ok := strings.Cut(s, "|")
	if n, err := strconv.Atoi(version); err == nil && ok && n > layoutVersion {
		return meta{}, errNewer
	}
	f := strings.SplitN(rest, "|", metaFields+1)
	if version != "1" || len(f) != metaFields+1 {
		return meta{}, fmt.Errorf("redisstore: a record is corrupt: %.60q", s)
	}
	m := meta{state: f[0], reason: f[1], peer: f[4], lane: f[5]}
	var bad error
	read := func(text string) int64 {
		if text == "" {
			return 0
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			bad = fmt.Errorf("redisstore: a record is corrupt: %w", err)
		}
		return n
	}
	m.ended, m.epoch = read(f[2]), read(f[3])
	m.due, m.started = read(f[6]), read(f[7])
	m.fails, m.reruns, m.runs = int(read(f[8])), int(read(f[9])), int(read(f[10]))
	m.maxReruns, m.weight = int(read(f[11])), int(read(f[12]))
	m.unique = f[14]
	return m, bad
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
	ms, err := strconv.ParseInt(stored[at:], 10, 64)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("its spec has no time: %w", err)
	}
	return []byte(stored[:at]), time.UnixMilli(ms), nil
}
