package dianemo

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A readCron is a valid cron line read a second time, by rules written down anew:
// which values of each field match.
type readCron struct {
	fields    [6]map[int]bool // second, minute, hour, day of month, month, day of week
	eitherDay bool
}

var cronBounds = [6][2]int{{0, 59}, {0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 6}}

func cronNumber(word string) int {
	for _, names := range []string{"JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC", "SUN MON TUE WED THU FRI SAT"} {
		for i, name := range strings.Fields(names) {
			if name == word && len(names) > 30 {
				return i + 1
			} else if name == word {
				return i
			}
		}
	}
	n, err := strconv.Atoi(word)
	if err != nil {
		panic(word + " is no number")
	}
	return n
}

// readLine returns nil for a line that is an interval.
func readLine(line string) *readCron {
	words := strings.Fields(strings.ToUpper(line))
	if short, ok := descriptors[strings.ToLower(words[0])]; ok {
		words = strings.Fields(short)
	} else if strings.HasPrefix(words[0], "@") {
		return nil
	}
	if len(words) == 5 {
		words = append([]string{"0"}, words...)
	}
	r, all := &readCron{}, [6]bool{}
	for i, word := range words {
		r.fields[i] = map[int]bool{}
		low, high := cronBounds[i][0], cronBounds[i][1]
		for part := range strings.SplitSeq(word, ",") {
			span, every, stepped := strings.Cut(part, "/")
			step := 1
			if stepped {
				step = cronNumber(every)
			}
			first, last, ranged := strings.Cut(span, "-")
			from, to := low, high
			switch {
			case span == "*" || span == "?":
				all[i] = all[i] || step == 1
			case ranged:
				from, to = cronNumber(first), cronNumber(last)
			default:
				from = cronNumber(first)
				if to = from; stepped && i == 5 {
					to = 7 // Sunday's second number
				} else if stepped {
					to = high
				}
			}
			if to < from { // past the end of the field
				to += high - low + 1
			}
			for v := from; v <= to; v += step {
				if v > high {
					r.fields[i][v-(high-low+1)] = true // 7 is Sunday, too
				} else {
					r.fields[i][v] = true
				}
			}
		}
	}
	r.eitherDay = !all[3] && !all[5]
	return r
}

func (r *readCron) day(clock time.Time) bool {
	dom, dow := r.fields[3][clock.Day()], r.fields[5][int(clock.Weekday())]
	if r.eitherDay {
		dom, dow = dom || dow, true
	}
	return r.fields[4][int(clock.Month())] && dom && dow
}

func (r *readCron) matches(clock time.Time) bool {
	return r.day(clock) && r.fields[2][clock.Hour()] && r.fields[1][clock.Minute()] && r.fields[0][clock.Second()]
}

// first is the first time from `from` on, and not later than to, that matches on a clock
// that is never changed.
func (r *readCron) first(from, to time.Time) (time.Time, bool) {
	for at := from; !at.After(to); {
		switch {
		case !r.day(at):
			at = time.Date(at.Year(), at.Month(), at.Day()+1, 0, 0, 0, 0, time.UTC)
		case !r.fields[2][at.Hour()]:
			at = at.Truncate(time.Hour).Add(time.Hour)
		case !r.fields[1][at.Minute()]:
			at = at.Truncate(time.Minute).Add(time.Minute)
		case !r.matches(at):
			at = at.Add(time.Second)
		default:
			return at, true
		}
	}
	return time.Time{}, false
}

// check holds an instant of a rule, and that there is none before it, against the line.
func (r *readCron) check(t *testing.T, zone *time.Location, after, next time.Time) {
	shown := func(unix int64) time.Time { return time.Unix(unix+offsetAt(zone, unix), 0).UTC() }
	unix := next.Unix()
	if clock := shown(unix); !r.matches(clock) {
		// Then it stands for what the clock has just left out.
		before := shown(unix - 1).Add(time.Second)
		require.True(t, before.Before(clock), "%v does not match", clock)
		_, skipped := r.first(before, clock.Add(-time.Second))
		require.True(t, skipped, "%v does not match, nor does anything that the clock has left out since %v", clock, before)
	}
	// Where the clock was not changed in between, or at all, nothing else may match.
	from := max(after.Unix()+1, 0)
	if unix-from > 40*366*oneDay {
		return
	}
	for at := from - 2*oneDay; at < unix; at += 6 * 3600 {
		if offsetAt(zone, at) != offsetAt(zone, unix) {
			return
		}
	}
	found, ok := r.first(shown(from), shown(unix))
	require.True(t, ok && found.Equal(shown(unix)), "%v was passed over for %v", found, shown(unix))
}

func TestACronLineIsReadTwiceAlike(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"0 9 * * Fri-Mon", "0 22-1 * * *", "0 9 * * SUN,TUE-SAT/2", "0 0 * * 5-7/2", "0 0 * NOV-FEB/2 4", "0 0 13 * FRI", "0 0 */10 * 5",
		"5/20 0 1 JAN-MAR *", "0 0 * * */5", "0 0 * * 1/3", "*/7 */5 3/9 */2 */5 ?", "15 2 * * *", "0 */2 * * *", "@weekly"} {
		for _, zone := range dstZones {
			rule, loc := cronOf(t, line, zone), loadedZone(t, zone)
			at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
			for range 100 {
				next := rule.Next(at)
				readLine(line).check(t, loc, at, next)
				at = next
			}
		}
	}
}

func loadedZone(t testing.TB, name string) *time.Location {
	zone, err := time.LoadLocation(name)
	require.NoError(t, err)
	return zone
}
