package dianemo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// A ScheduleState says what a schedule does.
type ScheduleState string

const (
	Active ScheduleState = "active" // fires
	Paused ScheduleState = "paused" // does not, until it is resumed
	Ended  ScheduleState = "ended"  // its rule has no further instant
	Broken ScheduleState = "broken" // can't be fired, and was set aside
)

// ScheduleInfo is a schedule as readers see it.
type ScheduleInfo struct {
	// Schedule is its definition. Of one that is broken only the Name may be there. A
	// rule of a program's own type is shown as its next instants, in a type that
	// PutSchedule and RuleText refuse.
	Schedule
	Kind  string // of a workflow, "workflow/" and its name
	State ScheduleState
	// Reason is why it is broken, or why an active one has no next occurrence here: a
	// newer version of this library may have written it, for one.
	Reason string
	// Next is when the next occurrence is due, jitter included; in the past if it waits
	// for another; zero if there is none, or none before the last one has ended.
	Next time.Time
	// Decided is the last instant whose occurrence was run, missed or skipped, or when
	// the schedule was made, resumed, or got another rule.
	Decided time.Time
	Last    string // id of the last occurrence that was made; "" for none
	// Unrecorded are the missed occurrences that have no job, of the last downtime that
	// had such, from the first to the last. [Client.Backfill] makes them.
	Unrecorded Unrecorded
	Declared   bool // by a program: see [Peer.Schedule]
	Handlers   int  // live peers that handle its kind; of a workflow's, that which the fewest handle
}

// PutSchedule makes a schedule, or changes the one of this name; the same again
// changes nothing. A new one begins now. One that is changed goes on where it is;
// with another rule, Start or End it begins anew now, once what was due is fired; an
// occurrence that waits for another is then not made. What was paused stays paused; what was broken is mended, and begins now.
//
// Errors: a [FieldError], also for a rule of a type of your own, which can only be
// declared (see [Peer.Schedule]), and for what [Client.GetSchedule] shows of one; [ErrStoreFull]; [ErrMoved]. While Redis can't be
// reached it waits and tries again until ctx ends; then the error is the context's,
// with [ErrUnconfirmed] if anything was sent. The same holds for all that change a
// schedule.
func (c *Client) PutSchedule(ctx context.Context, s Schedule) error {
	d, err := s.definition()
	if err != nil {
		return err
	}
	if strings.HasPrefix(d.Rule, ownRule) {
		_, err := RuleText(s.Rule)
		return err
	}
	_, err = c.change(ctx, s.Name, func(was *StoredSchedule, old *definition, _ time.Time) (*definition, error) {
		d := *d
		if old != nil {
			d.Declared, d.Built = old.Declared, old.Built
			if d.text() == old.text() && was.State != Broken {
				return nil, nil
			}
		}
		return &d, nil
	})
	return err
}

// change puts what decide returns in the place of a schedule; old is nil if there is
// none, or none that can be read. It reports whether there was anything to change.
func (c *Client) change(ctx context.Context, name string, decide func(was *StoredSchedule, old *definition, now time.Time) (*definition, error)) (bool, error) {
	ctx, done, err := c.enter(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	partition := c.store.Partition(name)
	var full error // the put was refused, or it was done before and has come again since its reply was lost
	for range maxMoves {
		was, now, err := c.readSchedule(ctx, name)
		if err != nil && !errors.Is(err, ErrNoSchedule) {
			return false, err
		}
		var old *definition
		if err == nil {
			old, err = was.decode()
			if errors.Is(err, ErrNewer) {
				return false, fmt.Errorf("schedule %q: %w", name, err)
			}
		}
		d, err := decide(was, old, now)
		if err != nil || d == nil {
			return full != nil, err
		}
		if full != nil {
			return false, full
		}
		wish := ScheduleWish{Name: name, What: PutIt, Version: was.Version, Cursor: now, From: was.Cursor}
		if was.Err != nil {
			wish.Version = AnyVersion
		}
		switch {
		case old == nil || was.State == Broken:
			was.Cursor, was.Last = now, ""
		case old.goesOnAs(d, was):
			wish.Cursor = time.Time{}
		default:
			// The cursor is to pass over all that the old rule has had.
			if again, err := c.flush(ctx, partition, was, old, now); err != nil {
				return false, err
			} else if again {
				continue
			}
			was.Cursor, was.Last = now, ""
		}
		if wish.Definition, err = d.encode(); err != nil {
			return false, err
		}
		if wish.Next, err = d.upcoming(was); err != nil {
			return false, err
		}
		switch _, err = c.setSchedule(ctx, partition, wish); {
		case errors.Is(err, ErrStoreFull):
			full = err
		case errors.Is(err, ErrMoved):
			// Perhaps because of what is due, which the change would pass over.
			err := c.insist(ctx, "fire schedule", func() error { return c.fireNamed(ctx, partition, name) })
			if err != nil {
				return false, err
			}
		default:
			return err == nil, err
		}
	}
	return false, ErrMoved
}

// flush makes the occurrences of an active schedule that are due or held by jitter,
// and has those that wait for another recorded as missed. It reports whether there were
// any.
func (c *Client) flush(ctx context.Context, partition int, s *StoredSchedule, d *definition, now time.Time) (bool, error) {
	if s.State != Active {
		return false, nil
	}
	f, err := d.flush(s, now)
	if err == nil && s.waiting(now) {
		f, err = d.miss(s, now)
	}
	if err != nil || len(f.Occurrences) == 0 && f.Unrecorded.Count == 0 {
		return false, err
	}
	_, err = c.sendFirings(ctx, partition, Fire{Firings: []Firing{f}}, now)
	return true, err
}

// upcoming is when the schedule is to be looked at.
func (d *definition) upcoming(s *StoredSchedule) (time.Time, error) {
	from, waits := d.from(s)
	if waits {
		return time.UnixMilli(1), nil // whoever looks at it says when to look again
	}
	o, err := d.follower(s.Name, d.occurrence(s.Name, from))
	return o.due, err
}

// readSchedule returns ErrNoSchedule and an empty one if there is none.
func (c *Client) readSchedule(ctx context.Context, name string) (*StoredSchedule, time.Time, error) {
	var read SchedulesReply
	err := c.insist(ctx, "read schedule", func() (err error) {
		read, err = c.store.Schedules(ctx, c.store.Partition(name), []string{name}, 0)
		return err
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	if len(read.Schedules) == 0 {
		return &StoredSchedule{Name: name}, read.Now, fmt.Errorf("%w: %q", ErrNoSchedule, name)
	}
	return &read.Schedules[0], read.Now, nil
}

// PauseSchedule stops a schedule until [Client.ResumeSchedule]. What falls into the
// pause is not made, not recorded, and not caught up; what was due before and had not
// been fired, or waits for another, is recorded as missed. Occurrences that were made are
// jobs like others and go on. Errors: [ErrNoSchedule], and as with
// [Client.PutSchedule].
func (c *Client) PauseSchedule(ctx context.Context, name string) error {
	return c.wishSchedule(ctx, name, PauseIt)
}

// ResumeSchedule ends a pause; it is no error if there is none. The schedule goes on
// with its next instant.
func (c *Client) ResumeSchedule(ctx context.Context, name string) error {
	return c.wishSchedule(ctx, name, ResumeIt)
}

// RemoveSchedule removes a schedule; the jobs that it has made stay. A program that
// declares it makes it anew when it next starts: to stop such a one, pause it.
func (c *Client) RemoveSchedule(ctx context.Context, name string) error {
	return c.wishSchedule(ctx, name, RemoveIt)
}

func (c *Client) wishSchedule(ctx context.Context, name string, what ScheduleChange) error {
	if err := CheckName("schedule", name); err != nil {
		return err
	}
	ctx, done, err := c.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	for try := 1; try <= maxMoves; try++ {
		wish := ScheduleWish{Name: name, What: what, Version: AnyVersion}
		if what == PauseIt && try < maxMoves {
			if wish.From, err = c.missBefore(ctx, name); err != nil {
				return err
			}
		}
		if what == ResumeIt {
			was, now, err := c.readSchedule(ctx, name)
			if err != nil {
				return err
			}
			if was.State == Broken {
				return &ScheduleError{name, Broken, was.Reason}
			}
			if errors.Is(was.Err, ErrNewer) {
				return fmt.Errorf("schedule %q: %w", name, was.Err)
			}
			if was.State != Paused {
				return nil
			}
			d, err := was.decode()
			if err != nil {
				return fmt.Errorf("schedule %q: %w", name, err)
			}
			wish.Version, wish.From = was.Version, was.Cursor
			if wish.Cursor, err = d.goesOn(was, now); err != nil {
				return err
			}
			was.Cursor = wish.Cursor
			if wish.Next, err = d.upcoming(was); err != nil {
				return err
			}
		}
		if _, err = c.setSchedule(ctx, c.store.Partition(name), wish); !errors.Is(err, ErrMoved) {
			return err
		}
	}
	return ErrMoved
}

// missBefore records as missed what is due of an active schedule. It returns the cursor
// up to which all is decided; zero if that can't be told.
func (c *Client) missBefore(ctx context.Context, name string) (time.Time, error) {
	for {
		s, now, err := c.readSchedule(ctx, name)
		if err != nil || s.State != Active {
			return time.Time{}, err
		}
		d, err := s.decode()
		if err != nil {
			return time.Time{}, nil // it can be paused all the same
		}
		f, err := d.miss(s, now)
		if err != nil || len(f.Occurrences) == 0 && f.Unrecorded.Count == 0 {
			return s.Cursor, nil // the same
		}
		if _, err := c.sendFirings(ctx, c.store.Partition(name), Fire{Firings: []Firing{f}}, now); err != nil {
			return time.Time{}, err
		}
	}
}

// TriggerSchedule makes an occurrence now, out of turn, and returns the id of its job or workflow. The
// schedule may be paused. Errors: [ErrNoSchedule]; an [OverlapError] while the last
// occurrence has not ended, unless Overlap is OverlapAllow; a [ScheduleError] if it is
// broken; and as with [Client.PutSchedule].
func (c *Client) TriggerSchedule(ctx context.Context, name string) (string, error) {
	if err := CheckName("schedule", name); err != nil {
		return "", err
	}
	ctx, done, err := c.enter(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	random := uuid.NewString()[:8]
	for range maxMoves {
		s, now, err := c.readSchedule(ctx, name)
		if err != nil {
			return "", err
		}
		if s.State == Broken {
			return "", &ScheduleError{name, Broken, s.Reason}
		}
		d, err := s.decode()
		if err != nil {
			return "", fmt.Errorf("schedule %q: %w", name, err)
		}
		now = now.Truncate(time.Millisecond)
		id := OccurrenceID(name, now) + "-" + random
		fire := Fire{Firings: []Firing{{Name: name, Version: s.Version, Extra: true, Overlap: d.Overlap,
			Occurrences: []Occurrence{{At: now, Record: d.record(id, occurrence{now, now})}}}}}
		var reply FireReply
		err = c.inTurn(ctx, c.store.Partition(name), "trigger schedule", func(call Call) (err error) {
			reply, err = c.store.Fire(ctx, c.store.Partition(name), call, fire)
			return err
		})
		if err != nil {
			return "", err
		}
		switch fired := reply.Fired[0]; {
		case fired.Waits:
			return "", &OverlapError{name, fired.Running}
		case fired.Done:
			o := &fire.Firings[0].Occurrences[0]
			c.hooks.Fire(FireInfo{name, id, o.Lane.Kind, o.Lane.Priority, now, fired.States[0], 0})
			c.unfoldAll(ctx, c.store.Partition(name), flowsOf(fire.Firings, reply))
			c.wake(c.store.Partition(name), "", reply.News...)
			return id, nil
		}
	}
	return "", ErrMoved
}

// GetSchedule reads one schedule, or returns [ErrNoSchedule]. Like all reading, this
// and [Client.ListSchedules] do not try again while Redis can't be reached.
func (c *Client) GetSchedule(ctx context.Context, name string) (*ScheduleInfo, error) {
	if err := CheckName("schedule", name); err != nil {
		return nil, err
	}
	infos, err := c.schedules(ctx, func(context.Context) ([]string, error) { return []string{name}, nil })
	if err == nil && len(infos) == 0 {
		err = fmt.Errorf("%w: %q", ErrNoSchedule, name)
	}
	if err != nil {
		return nil, err
	}
	return &infos[0], nil
}

// ListSchedules lists schedules in the order of their names: those after the name
// after, at most limit, 1 to MaxList. Go on with the name of the last one.
func (c *Client) ListSchedules(ctx context.Context, after string, limit int) ([]ScheduleInfo, error) {
	if limit < 1 || limit > MaxList {
		return nil, &FieldError{"ListSchedules(limit)", limit, fmt.Sprintf("1 to %d", MaxList)}
	}
	return c.schedules(ctx, func(ctx context.Context) ([]string, error) { return c.store.ScheduleNames(ctx, after, limit) })
}

func (c *Client) schedules(ctx context.Context, list func(context.Context) ([]string, error)) ([]ScheduleInfo, error) {
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	names, err := list(ctx)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	peers, err := c.store.Peers(ctx)
	if err != nil {
		return nil, err
	}
	var stored []StoredSchedule
	err = c.eachSchedules(ctx, names, func(_ int, read SchedulesReply) error {
		stored = append(stored, read.Schedules...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(stored, func(a, b StoredSchedule) int { return strings.Compare(a.Name, b.Name) })
	infos := make([]ScheduleInfo, len(stored))
	for i := range stored {
		infos[i] = stored[i].info()
		for k, kind := range infos[i].kinds() {
			handle := 0
			for j := range peers {
				if slices.Contains(peers[j].Kinds, kind) {
					handle++
				}
			}
			if k == 0 || handle < infos[i].Handlers {
				infos[i].Handlers = handle
			}
		}
	}
	return infos, nil
}

// eachSchedules reads schedules of all partitions.
func (c *Client) eachSchedules(ctx context.Context, names []string, do func(partition int, read SchedulesReply) error) error {
	places := map[int][]string{}
	for _, name := range names {
		p := c.store.Partition(name)
		places[p] = append(places[p], name)
	}
	for partition, left := range places {
		for len(left) > 0 {
			read, err := c.store.Schedules(ctx, partition, left, 0)
			if err == nil && read.Asked == 0 {
				err = fmt.Errorf("dianemo: %d schedules of partition %d were not read", len(left), partition)
			}
			if err == nil {
				err = do(partition, read)
			}
			if err != nil {
				return err
			}
			left = left[read.Asked:]
		}
	}
	return nil
}

// info is the reader's view.
func (s *StoredSchedule) info() ScheduleInfo {
	i := ScheduleInfo{Schedule: Schedule{Name: s.Name}, State: s.State, Reason: s.Reason, Decided: s.Cursor, Last: s.Last, Unrecorded: s.Unrecorded}
	d, err := s.decode()
	if errors.Is(err, ErrNewer) {
		// Programs that know it fire it. If its cursor can't be read, it is not known to be paused.
		i.State, i.Reason = inherit(i.State, Active), inherit(i.Reason, err.Error())
		return i
	}
	if err != nil {
		i.State, i.Reason = Broken, inherit(i.Reason, err.Error())
		return i
	}
	i.Schedule, i.Kind, i.Declared = d.schedule(s.Name), d.spec.Kind, d.Declared != ""
	if s.State != Active {
		return i
	}
	from, waits := d.from(s)
	if waits {
		return i
	}
	next, err := d.follower(s.Name, d.occurrence(s.Name, from))
	switch {
	case err != nil:
		i.Reason = err.Error()
	case next.at.IsZero() && strings.HasPrefix(d.Rule, ownRule):
		i.Reason = "it waits for a program that knows its rule, " + strings.TrimPrefix(d.Rule, ownRule)
	case next.at.IsZero():
		i.State = Ended
	default:
		i.Next = next.due
	}
	return i
}

// Preview lists the next n occurrences, at most MaxPreview: when they are due, jitter
// included. Fewer, where the schedule ends.
func (i *ScheduleInfo) Preview(n int) []time.Time {
	d, err := i.definition()
	if err != nil {
		return nil
	}
	var all []time.Time
	for last := d.occurrence(i.Name, i.Decided); len(all) < min(n, MaxPreview); {
		o, err := d.follower(i.Name, last)
		if err != nil || o.at.IsZero() {
			break
		}
		all, last = append(all, o.due), o
	}
	return all
}

// A Backfill asks for the occurrences of a past interval.
type Backfill struct {
	From, To time.Time // from From on and before To, which is not in the future
	// Max bounds how many jobs are made, the earliest first: 1 to MaxBackfill. There is
	// no default.
	Max int
	// Every is the pace: each job is due that long after the one before, the first
	// now; 0: all now. At most a day.
	Every time.Duration
	// Priority is 1 to 9; 0: the schedule's. The grace stays the schedule's.
	Priority int
}

// MaxBackfill is the most jobs that one Backfill makes.
const MaxBackfill = 10_000

// Backfilled is what a Backfill has done.
type Backfilled struct {
	IDs      []string // of the jobs that were made
	Existing int      // occurrences that have a job already, however it ended
	// Next is the From with which to go on; zero if the interval is done.
	Next time.Time
}

// Backfill makes the occurrences of a past interval, as jobs that are due now or at
// the pace that it says, and leaves the cursor where it is. An occurrence that has a
// job already is not made again: requeue that one, for example the missed ones by
// [Client.RequeueAll]. Where retention has let go of a job, it is made again. What an
// active schedule has not decided yet is left to it. Neither Start, End nor Overlap matter.
//
// Errors: a [FieldError], also for a rule that counts from the end of jobs, and for one
// that this program does not know; [ErrNoSchedule]; a [ScheduleError] if it is broken;
// and as with [Client.EnqueueMany]. With an error, Backfilled tells what was done
// before; the same call again goes on.
func (c *Client) Backfill(ctx context.Context, name string, b Backfill) (Backfilled, error) {
	var done Backfilled
	if err := firstError(CheckName("schedule", name), b.check()); err != nil {
		return done, err
	}
	if err := c.open(ctx); err != nil {
		return done, err
	}
	s, now, err := c.readSchedule(ctx, name)
	if err != nil {
		return done, err
	}
	if s.State == Broken {
		return done, &ScheduleError{name, Broken, s.Reason}
	}
	d, err := s.decode()
	if err != nil {
		return done, fmt.Errorf("schedule %q: %w", name, err)
	}
	if b.To.After(now) {
		return done, &FieldError{"Backfill.To", b.To, "a time that is not in the future"}
	}
	if end := s.Cursor.Add(time.Millisecond); s.State == Active && b.To.After(end) {
		b.To = end // what is not decided yet is the schedule's
	}
	if d.finishes() {
		return done, &FieldError{"Backfill: rule", d.Rule, "a rule that does not count from the end of jobs"}
	}
	if strings.HasPrefix(d.Rule, ownRule) {
		own := c.rules[name]
		if own == nil {
			return done, &FieldError{"Backfill: rule", d.Rule, "a rule that this program has declared"}
		}
		d.rule = own
	}
	d.start, d.end = time.Time{}, time.Time{}
	d.spec.Follow = false
	if IsWorkflow(d.spec.Kind) && b.Priority != 0 {
		if err := d.spec.prioritize(b.Priority); err != nil {
			return done, err
		}
	} else {
		d.spec.Priority = inherit(b.Priority, d.spec.Priority)
	}
	var batch []Record
	send := func() error {
		for i, err := range c.acceptOccurrences(ctx, batch) {
			switch {
			case err == nil:
				done.IDs = append(done.IDs, batch[i].ID)
			case errors.Is(err, ErrExists):
				done.Existing++
			default:
				done.Next = time.Time{}
				return err
			}
		}
		batch = batch[:0]
		return nil
	}
	for from, n := b.From.Add(-time.Millisecond), 0; ; n++ {
		at, err := d.next(from)
		if err != nil {
			return done, err
		}
		if at.IsZero() || !at.Before(b.To) {
			return done, send()
		}
		if len(batch) == MaxCallJobs || len(done.IDs)+len(batch) >= b.Max {
			if err := send(); err != nil {
				return done, err
			}
			if len(done.IDs) >= b.Max {
				done.Next = at
				return done, nil
			}
		}
		batch = append(batch, d.record(OccurrenceID(name, at), occurrence{at, now.Add(time.Duration(len(done.IDs)+len(batch)) * b.Every)}))
		from = at
	}
}

func (b *Backfill) check() error {
	if err := firstError(checkInstant("Backfill.From", b.From), checkInstant("Backfill.To", b.To)); err != nil {
		return err
	}
	switch {
	case !b.From.Before(b.To):
		return &FieldError{"Backfill.To", b.To, "a time after From"}
	case b.Max < 1 || b.Max > MaxBackfill:
		return &FieldError{"Backfill.Max", b.Max, fmt.Sprintf("1 to %d", MaxBackfill)}
	case b.Every < 0 || b.Every > 24*time.Hour:
		return &FieldError{"Backfill.Every", b.Every, "0 to 24h"}
	}
	return checkCount("Backfill.Priority", b.Priority, 1, 9, false)
}
