package dianemo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// A declared schedule is one that this program's source says.
type declaredSchedule struct {
	name string
	own  Rule // of a type of the program's own
	*definition
	sum string // of what is declared

	// The rest is for the loop that declares.
	made   bool      // the first look at it was answered
	look   time.Time // when it is to be looked at; zero: with all others
	passed int64     // when the newer build was built for which it was passed over last
	failed bool      // that it fails was said
}

// Schedule declares a schedule of this program: Run makes it, or changes the one of
// this name. Call it before Run.
//
// To declare the same again changes nothing, so what an operator has changed, paused or
// resumed since stays. A changed declaration replaces what is there. Where two versions
// of a program declare different things, the newer one wins, which is the one that was
// built later (Config.Built): the older one's declaration is passed over for as long
// as a peer of the newer build, or a still newer one, is alive, and after a rollback it
// takes over within a minute of the last of these; within ten minutes, if that one lived
// less than a minute. Of two that were built at the same moment the one that starts
// later wins. What no program declares any more stays until [Client.RemoveSchedule], and
// what was removed stays away until a program that declares it starts.
//
// The rule may be of a type of your own. Its next instants are then kept in the store,
// where any leader can fire them, and added to by peers that declare it; while none is
// up, the schedule ends with those that are known, at least 256. To tell such a rule
// from another, the name of its type counts, and that its instants are computed anew by
// a newer build. What it gave before it panicked, or returned what is no later instant,
// is kept; one that gives nothing is not declared. Both are logged, and tried again each
// minute.
//
// Errors: a [FieldError].
func (p *Peer) Schedule(s Schedule) error {
	d, err := s.definition()
	if err != nil {
		return err
	}
	one := &declaredSchedule{name: s.Name, definition: d}
	sum := sha256.Sum256([]byte(d.text()))
	one.sum = hex.EncodeToString(sum[:8])
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ran {
		return &FieldError{"Schedule", s.Name, "a call before Run"}
	}
	if slices.ContainsFunc(p.schedules, func(d *declaredSchedule) bool { return d.name == s.Name }) {
		return &FieldError{"Schedule.Name", s.Name, "one schedule of this name for each peer"}
	}
	if strings.HasPrefix(d.Rule, ownRule) {
		if _, ok := s.Rule.(knownRule); ok {
			_, err := RuleText(s.Rule)
			return err
		}
		one.own = s.Rule
		p.rules[s.Name] = s.Rule
	}
	p.schedules = append(p.schedules, one)
	return nil
}

const (
	// declareAgain is how often a peer looks who lives.
	declareAgain = time.Minute
	// declareAnew is how often it looks at all that it declares.
	declareAnew = 10 * time.Minute
	// knownAhead is how many instants of a program's own rule are kept at least.
	knownAhead = 256
)

// declares makes what this program declares, and keeps it so for as long as the peer
// runs. What a newer build declares otherwise is its own again when that has gone;
// whether one has, a single call each minute tells.
func (p *Peer) declares(ctx context.Context) {
	if len(p.schedules) == 0 {
		return
	}
	select {
	case <-p.visible: // so that an older build that finds what this one declares finds this one too
	case <-ctx.Done():
		return
	}
	var seen, all time.Time // when it has looked who lives, and when at all schedules
	for attempt := 1; ; attempt++ {
		var err error
		gone := false
		if time.Since(seen) >= declareAgain {
			if gone, err = p.outlived(ctx); err == nil {
				seen = time.Now()
			}
		}
		if now := time.Now(); gone || now.Sub(all) >= declareAnew {
			all = now
			for _, d := range p.schedules {
				d.look = now
			}
		}
		if err == nil {
			err = p.declareDue(ctx)
		}
		if ctx.Err() != nil || errors.Is(err, ErrClosed) {
			return
		}
		p.mended(0, err)
		p.unscheduled.about(p.logger, err, "schedules could not be declared; trying again")
		wait := backoff(attempt, 100*time.Millisecond, 10*time.Second)
		if err == nil {
			attempt = 0
			wait = min(time.Until(seen.Add(declareAgain)), time.Until(all.Add(declareAnew)))
			for _, d := range p.schedules {
				if !d.look.IsZero() {
					wait = min(wait, time.Until(d.look))
				}
			}
			wait = max(wait, 100*time.Millisecond) // and those of that time together
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// outlived looks who lives, and reports whether a newer build has gone.
func (p *Peer) outlived(ctx context.Context) (bool, error) {
	was := p.newest
	newest, err := p.newestAlive(ctx)
	if err != nil {
		return false, err
	}
	p.newest = newest
	return newest < was, nil
}

// newestAlive is when the newest build was built of which a peer lives, in ms.
func (p *Peer) newestAlive(ctx context.Context) (int64, error) {
	peers, err := p.store.Peers(ctx)
	if err != nil {
		return 0, err
	}
	newest := p.config.Built.UnixMilli()
	for i := range peers {
		newest = max(newest, peers[i].Built.UnixMilli())
	}
	p.newest = max(p.newest, newest) // it may have come and gone before the next look
	return newest, nil
}

// declareDue declares those that are to be looked at now. It reads many with a call,
// and of most there is no more to do.
func (p *Peer) declareDue(ctx context.Context) error {
	var names []string
	left := map[string]*declaredSchedule{}
	for _, d := range p.schedules {
		if !d.look.IsZero() && !d.look.After(time.Now()) {
			names = append(names, d.name)
			left[d.name] = d
		}
	}
	err := p.eachSchedules(ctx, names, func(_ int, read SchedulesReply) error {
		newest := sync.OnceValues(func() (int64, error) { return p.newestAlive(ctx) })
		for i := range read.Schedules {
			was := &read.Schedules[i]
			d := left[was.Name]
			old, err := was.decode()
			if err != nil && !errors.Is(err, ErrNewer) {
				continue
			}
			var next *definition
			var again time.Duration
			if err == nil {
				next, again, err = p.redeclare(d, was, old, read.Now, newest)
			}
			switch {
			case isOwn(err):
				d.fails(p.logger, err)
			case err != nil:
				return err
			case next != nil:
				continue
			default:
				d.looked(again)
			}
			delete(left, d.name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var failed error
	for _, name := range names {
		d := left[name]
		if d == nil {
			continue
		}
		switch err := p.declareSchedule(ctx, d); {
		case err == nil:
		case isOwn(err):
			d.fails(p.logger, err)
		case ctx.Err() != nil || errors.Is(err, ErrClosed) || errors.Is(err, ErrStoreFull):
			return err
		default:
			failed = err // which must not keep the others from being declared
		}
	}
	return failed
}

// declareSchedule makes one.
func (p *Peer) declareSchedule(ctx context.Context, d *declaredSchedule) error {
	var again time.Duration
	_, err := p.change(ctx, d.name, func(was *StoredSchedule, old *definition, now time.Time) (next *definition, err error) {
		next, again, err = p.redeclare(d, was, old, now, func() (int64, error) { return p.newestAlive(ctx) })
		return next, err
	})
	if err == nil {
		d.looked(again)
	}
	return err
}

// isOwn reports whether an error is about this one schedule, and will be the same soon.
func isOwn(err error) bool { return errors.Is(err, ErrInvalid) || errors.Is(err, ErrNewer) }

// fails takes in that it could not be declared.
func (d *declaredSchedule) fails(logger *slog.Logger, err error) {
	d.look = time.Now().Add(declareAgain)
	d.complain(logger, err, "a schedule can't be declared; what is there stays")
}

// complain says so once for each run of failures.
func (d *declaredSchedule) complain(logger *slog.Logger, err error, message string) {
	if !d.failed {
		logger.Error(message, "schedule", d.name, "err", err)
	}
	d.failed = true
}

// looked takes in that a look at it was answered, and when there is to be another, 0:
// with all others.
func (d *declaredSchedule) looked(again time.Duration) {
	d.made, d.look = true, time.Time{}
	d.failed = d.failed && d.own != nil // whose failing its rule tells
	if again > 0 {
		d.look = time.Now().Add(again)
	}
}

// redeclare decides what is to be in the place of a schedule that this program
// declares, nil: what is there; and when that is to be looked at again, 0: with all
// others. newest looks who lives, and not before, since it may have come up since. At
// the start the program has its say. Later it has not, where somebody else has spoken
// since: who has removed the schedule, or an equally old build that declares it
// otherwise, with which there would be no end.
func (p *Peer) redeclare(d *declaredSchedule, was *StoredSchedule, old *definition, now time.Time, newest func() (int64, error)) (*definition, time.Duration, error) {
	built := p.config.Built.UnixMilli()
	next := *d.definition
	next.Declared, next.Built = d.sum, built
	same := old != nil && old.Declared == d.sum
	instants := d.own != nil && old != nil && old.Rule == d.Rule && old.Built != built // another build's, whose code may differ
	switch {
	case old == nil || old.Declared == "":
		if d.made {
			return nil, 0, nil
		}
	case (!same || instants) && old.Built > built:
		alive, err := newest()
		if err != nil {
			return nil, 0, err
		}
		if alive >= old.Built {
			if d.passed != old.Built {
				p.logger.Info("a newer build declares this schedule otherwise", "schedule", d.name, "built", time.UnixMilli(old.Built))
			}
			d.passed = old.Built
			return nil, 0, nil
		}
	case d.made && (!same && old.Built == built || same && was.State == Broken):
		return nil, 0, nil
	}
	if same && was.State != Broken {
		if next = *old; old.Built < built || instants {
			next.Built = built // so that this build's word counts, should another declare otherwise
		}
		if d.own == nil || old.Rule != d.Rule {
			if old.Built >= built {
				return nil, 0, nil
			}
			return &next, 0, nil
		}
	}
	if d.own == nil {
		return &next, 0, nil
	}
	if instants {
		next.Known = nil
	}
	from := was.Cursor
	if old == nil || was.State == Broken || !old.sameInstants(&next) {
		from = now
	}
	again, err := next.know(d.own, from, now)
	switch {
	case err == nil:
		d.failed = false
	case len(next.Known) == 0:
		return nil, 0, err
	default:
		d.complain(p.logger, err, "a schedule's own rule has failed; it goes on with the instants that are known")
	}
	if was.State == Paused {
		again = declareAgain // no instant passes
	}
	if old != nil && slices.Equal(next.Known, old.Known) && next.Built == old.Built && next.text() == old.text() {
		return nil, again, nil
	}
	return &next, again, nil
}

// know computes the next instants of a program's own rule, and says when more are to
// be added: when half of them have passed, or soon, if all have; 0 if there are no
// more. With an error it keeps those before the rule failed.
func (d *definition) know(own Rule, from, now time.Time) (again time.Duration, err error) {
	had := d.Known
	d.rule, d.Known = own, nil
	ahead, half, end := 0, now, false
	for ahead < knownAhead && len(d.Known) < MaxInstants {
		var at time.Time
		at, err = d.next(from)
		if end = err != nil || at.IsZero(); end {
			break
		}
		d.Known, from = append(d.Known, at.UnixMilli()), at
		if at.After(now) {
			if ahead++; ahead <= knownAhead/2 {
				half = at
			}
		}
	}
	if n := len(d.Known); n > 0 && len(had) > 0 && d.Known[0] >= had[0] && (had[len(had)-1] > half.UnixMilli() && ahead > 0 || end && had[len(had)-1] == d.Known[n-1]) {
		d.Known = had // which has enough of them
	}
	d.rule = knownRule(d.Known)
	switch {
	case err != nil:
		return declareAgain, err
	case end:
		return 0, nil
	}
	return max(half.Sub(now), 100*time.Millisecond), nil
}

// buildTime is when this program was built: the time of its commit, or of its file.
func buildTime() time.Time {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				if at, err := time.Parse(time.RFC3339, s.Value); err == nil {
					return at
				}
			}
		}
	}
	if path, err := os.Executable(); err == nil {
		if file, err := os.Stat(path); err == nil {
			return file.ModTime()
		}
	}
	return time.UnixMilli(0)
}
