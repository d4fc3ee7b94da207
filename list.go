package dianemo

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
)

// A Filter says which jobs [Client.List] lists. The zero value lists all, those
// with the earliest time first. A job's time is when it is due while it waits, when
// its run began while it runs, and when it ended once it has; of a blocked one, until
// when it must start, the end of the year 9999 if nothing says that.
type Filter struct {
	// States are those of readers: Queued, Scheduled and Retrying are told apart.
	// None: all.
	States []State
	Kinds  []string // none: all
	// Priority is 1 to 9; 0: all. Jobs that run or have ended are in no order of
	// priorities, so where few of them have this one a page may be short or empty
	// and yet have a Next.
	Priority int
	// From and To bound the time: not before From, and before To. Zero: no bound.
	From, To time.Time
	Newest   bool // the latest time first
	// Limit is how many jobs a page has at most, 1 to MaxList; default 100.
	Limit int
	// After is the Next of a page; "": from the beginning.
	After string
}

// MaxList is the most that one page of a list may have.
const MaxList = 1000

// A Page of a list. Of each job it has all but History, Progress and Result.
type Page struct {
	Jobs []JobInfo
	// Next is what Filter.After must be to go on; "" if there is nothing more. A
	// page with fewer jobs than the limit, or none, may have a Next: a call reads
	// a bounded number of jobs (about 10,000) and of bytes (4 MiB, and what the last
	// of some round trips brings), whether or not they match.
	Next string
}

// List reads a page of jobs, ordered by their time and then by id, across all
// partitions.
//
// While the pages of one list are read, jobs go on. One that neither moves to
// another state, lane or peer nor leaves is listed exactly once, whatever comes and
// goes around it; one that moves is listed where it was, where it is, at both places
// or, if it moved behind the reader, not at all; it is shown as it was when it was
// found. A job whose record can't be read has what its index tells and the Reason
// corrupt or newer.
//
// The error is a [FieldError] if the filter is wrong. Like all reading, it does not
// try again while Redis can't be reached.
func (c *Client) List(ctx context.Context, filter Filter) (Page, error) {
	listing := Listing{Filter: filter}
	if err := listing.fill(); err != nil {
		return Page{}, err
	}
	if err := c.open(ctx); err != nil {
		return Page{}, err
	}
	reply, err := c.store.List(ctx, listing)
	if err != nil {
		return Page{}, err
	}
	page := Page{Jobs: make([]JobInfo, len(reply.Jobs))}
	for i := range reply.Jobs {
		reply.Jobs[i].decode()
		page.Jobs[i] = reply.Jobs[i].Info
	}
	if reply.Next != (Place{}) {
		page.Next = reply.Next.cursor()
	}
	return page, nil
}

// fill checks a filter, sets its defaults and reads its cursor.
func (l *Listing) fill() error {
	for _, s := range l.States {
		if !slices.Contains(readable, s) {
			return &FieldError{"Filter.States", string(s), fmt.Sprintf("%s", readable)}
		}
	}
	for _, kind := range l.Kinds {
		if err := CheckName("Filter.Kinds", kind); err != nil {
			return err
		}
	}
	if l.Priority < 0 || l.Priority > 9 {
		return &FieldError{"Filter.Priority", l.Priority, "1 to 9, or 0 for all"}
	}
	if !l.From.IsZero() && !l.To.IsZero() && !l.From.Before(l.To) {
		return &FieldError{"Filter.To", l.To, "a time after From"}
	}
	if l.Limit < 0 || l.Limit > MaxList {
		return &FieldError{"Filter.Limit", l.Limit, fmt.Sprintf("1 to %d, or 0 for 100", MaxList)}
	}
	l.Limit = inherit(l.Limit, 100)
	if l.Filter.After != "" {
		place, ok := parseCursor(l.Filter.After)
		if !ok {
			return &FieldError{"Filter.After", l.Filter.After, "the Next of a Page, as it was"}
		}
		l.After = place
	}
	return nil
}

var readable = []State{Blocked, Scheduled, Queued, Retrying, Running, Succeeded, Failed, Missed, Unreachable, Cancelled, Skipped}

// A cursor is a version, the time in µs, the id, and a sum over these, by which
// one that was cut or changed is known.
const cursorVersion = '1'

func (p Place) cursor() string {
	b := binary.BigEndian.AppendUint64([]byte{cursorVersion}, uint64(p.Time.UnixMicro()))
	return seal(append(b, p.ID...))
}

func parseCursor(s string) (Place, bool) {
	b, ok := unseal(s)
	if !ok || len(b) < 10 || b[0] != cursorVersion {
		return Place{}, false
	}
	us := int64(binary.BigEndian.Uint64(b[1:]))
	p := Place{time.UnixMicro(us), string(b[9:])}
	return p, us >= 0 && CheckName("", p.ID) == nil && p.cursor() == s
}

func seal(b []byte) string {
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)))
}

// unseal does not say that the sum is right: for that, what was read is sealed again.
func unseal(s string) ([]byte, bool) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) < 4 {
		return nil, false
	}
	return b[:len(b)-4], true
}
