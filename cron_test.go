package dianemo

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo/internal/sample"
)

var update = flag.Bool("update", false, "write testdata anew")

func cronOf(t testing.TB, line, zone string) Rule {
	rule, err := Cron(line, zone)
	require.NoError(t, err)
	return rule
}

// upTo are a rule's instants after from and before to.
func upTo(t testing.TB, rule Rule, from, to time.Time) []time.Time {
	var instants []time.Time
	for next := rule.Next(from); !next.IsZero() && next.Before(to); next = rule.Next(next) {
		if !next.After(from) { // asked so often that require would take most of the time
			require.Fail(t, "not later", "%v: %v after %v", rule, next, from)
		}
		instants, from = append(instants, next), next
	}
	return instants
}

// dstLines are told a second time, without a parser: which times of a clock
// match, on a grid of seconds, and what is promised when the clock is changed.
var dstLines = []struct {
	line    string
	matches func(clock time.Time) bool
	grid    int64
	again   bool // runs in both of the hours that look the same
	madeUp  bool // runs after the hour that does not exist
	back    time.Duration
}{
	{"15 2 * * *", func(c time.Time) bool { return c.Hour() == 2 && c.Minute() == 15 }, 60, false, true, 4 * oneDay * time.Second},
	{"45 1 * * *", func(c time.Time) bool { return c.Hour() == 1 && c.Minute() == 45 }, 60, false, true, 4 * oneDay * time.Second},
	{"@daily", func(c time.Time) bool { return c.Hour() == 0 && c.Minute() == 0 }, 60, false, true, 4 * oneDay * time.Second},
	{"0 * * * *", func(c time.Time) bool { return c.Minute() == 0 }, 60, true, false, 5 * time.Hour},
	{"*/15 * * * *", func(c time.Time) bool { return c.Minute()%15 == 0 }, 60, true, false, 2 * time.Hour},
	{"0 */2 * * *", func(c time.Time) bool { return c.Hour()%2 == 0 && c.Minute() == 0 }, 60, true, true, 9 * time.Hour},
	{"*/20 1-2 * * *", func(c time.Time) bool { return (c.Hour() == 1 || c.Hour() == 2) && c.Minute()%20 == 0 }, 60, false, true,
		2 * oneDay * time.Second},
	{"30 2 * * SUN", func(c time.Time) bool { return c.Weekday() == time.Sunday && c.Hour() == 2 && c.Minute() == 30 }, 60, false, true,
		25 * oneDay * time.Second},
	{"45 1 1 * *", func(c time.Time) bool { return c.Day() == 1 && c.Hour() == 1 && c.Minute() == 45 }, 60, false, true,
		100 * oneDay * time.Second},
	{"20,50 30 * * * *", func(c time.Time) bool { return c.Minute() == 30 && c.Second()%30 == 20 }, 10, true, false, 3 * time.Hour},
}

var dstZones = []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"}

func offsetAt(loc *time.Location, unix int64) int64 {
	_, offset := time.Unix(unix, 0).In(loc).Zone()
	return int64(offset)
}

// changes finds, minute by minute, when a zone's offset is another than before.
// UTC has none; Berlin's stand in.
func changes(t testing.TB, zone string, from, to int) []int64 {
	if zone == "UTC" {
		zone = "Europe/Berlin"
	}
	loc, err := time.LoadLocation(zone)
	require.NoError(t, err)
	var found []int64
	end := time.Date(to+1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	for h := time.Date(from, 1, 1, 0, 0, 0, 0, time.UTC).Unix(); h < end; h += 3600 {
		if offsetAt(loc, h) == offsetAt(loc, h+3600) {
			continue
		}
		for m := h; m < h+3600; m += 60 {
			if offsetAt(loc, m) != offsetAt(loc, m+60) {
				found = append(found, m+60)
			}
		}
	}
	return found
}

// bruteForce walks over all times that a clock could show in the three days
// around a change, and looks when it does.
func bruteForce(loc *time.Location, change int64, grid int64, matches func(time.Time) bool, again, madeUp bool) []time.Time {
	offsets := []int64{offsetAt(loc, change-1), offsetAt(loc, change)}
	slices.Sort(offsets)
	offsets = slices.Compact(offsets)
	slices.Reverse(offsets) // the larger one shows a time first
	var instants []int64
	begin := (change/60*60 + offsets[0]) / 60 * 60
	for clock := begin - 36*3600; clock < begin+36*3600; clock += grid {
		if !matches(time.Unix(clock, 0).UTC()) {
			continue
		}
		shown := 0
		for _, offset := range offsets {
			if unix := clock - offset; offsetAt(loc, unix) == offset && (shown == 0 || again) {
				instants = append(instants, unix)
				shown++
			}
		}
		if shown == 0 && madeUp {
			unix := change - 6*3600
			for unix+offsetAt(loc, unix) < clock {
				unix += 60
			}
			instants = append(instants, unix)
		}
	}
	slices.Sort(instants)
	var times []time.Time
	for _, unix := range slices.Compact(instants) {
		if unix > change-30*3600 && unix < change+30*3600 {
			times = append(times, time.Unix(unix, 0).In(loc))
		}
	}
	return times
}

func TestWhenClocksAreChangedTheGoldenTableAndABruteForceWalkAgree(t *testing.T) {
	t.Parallel()
	var golden strings.Builder
	for _, zone := range dstZones {
		loc, err := time.LoadLocation(zone)
		require.NoError(t, err)
		found := changes(t, zone, 2024, 2035)
		require.Len(t, found, 24)
		for _, change := range found {
			at := time.Unix(change, 0).In(loc)
			fmt.Fprintf(&golden, "%s: %s becomes %s\n", zone, time.Unix(change-1, 0).In(loc).Format(time.RFC3339), at.Format(time.RFC3339))
			for _, l := range dstLines {
				rule := cronOf(t, l.line, zone)
				want := bruteForce(loc, change, l.grid, l.matches, l.again, l.madeUp)
				got := upTo(t, rule, at.Add(-30*time.Hour), at.Add(30*time.Hour))
				require.Equal(t, want, got, "%s in %s around %v", l.line, zone, at)

				before := upTo(t, rule, at.Add(-l.back), at)
				fmt.Fprintf(&golden, "  %-16s", l.line)
				for _, next := range slices.Concat(before[len(before)-3:], []time.Time{{}}, Preview(rule, at.Add(-time.Second), 4)) {
					if next.IsZero() {
						golden.WriteString(" |")
					} else {
						golden.WriteString(next.Format(" 01-02T15:04:05Z07:00"))
					}
				}
				golden.WriteByte('\n')
			}
		}
	}
	const file = "testdata/dst.golden"
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(golden.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	wanted, got := strings.Split(string(want), "\n"), strings.Split(golden.String(), "\n")
	for i := range wanted { // the whole file in one message helps nobody
		require.Equal(t, wanted[i], got[i], "line %d of %s", i+1, file)
	}
	require.Len(t, got, len(wanted))
}

// oddZones have changes at midnight, across it, of two hours and of a whole day,
// in the middle of the day, four times a year, and ones that only a general rule
// tells.
var oddZones = []string{
	"America/Havana", "America/Sao_Paulo", "America/Santiago", "America/Asuncion", "America/St_Johns", "America/Nuuk",
	"America/Scoresbysund", "Africa/Cairo", "Africa/Casablanca", "Africa/Monrovia", "Antarctica/Troll", "Asia/Beirut", "Asia/Gaza",
	"Asia/Tehran", "Asia/Kathmandu", "Asia/Pyongyang", "Atlantic/Azores", "Europe/Dublin", "Europe/London", "Pacific/Apia",
	"Pacific/Kiritimati", "Pacific/Kwajalein", "Pacific/Chatham",
}

// spans hold changes of all sorts: Kwajalein skipped a day in 1993, Kiritimati in
// 1994, Samoa in 2011; 2044 is told by general rules, and is a leap year.
var spans = [][2]string{{"1993-08-01", "1995-02-01"}, {"2011-03-01", "2012-05-01"}, {"2026-01-01", "2027-12-01"}, {"2044-03-01", "2045-04-15"}}

func TestADailyRuleRunsExactlyOnceOnEachDayThatExists_Long(t *testing.T) {
	t.Parallel()
	skipped := map[string]string{"1993-08-21": "Pacific/Kwajalein", "1994-12-31": "Pacific/Kiritimati", "2011-12-30": "Pacific/Apia"}
	type row struct {
		zone, line string
		span       [2]string
	}
	var rows, skipping []row
	for _, zone := range slices.Concat(dstZones, oddZones) {
		for _, line := range []string{"@daily", "30 1 * * *", "59 59 2 * * *", "0 12 * * *", "15 23 * * *"} {
			for _, span := range spans {
				rows = append(rows, row{zone, line, span})
				for day, where := range skipped {
					if zone == where && span[0] <= day && day < span[1] {
						skipping = append(skipping, row{zone, line, span})
					}
				}
			}
		}
	}
	require.Len(t, skipping, 15)
	for _, r := range slices.Concat(skipping, sample.Rows(t, rows, 5)) {
		day, err := time.Parse(time.DateOnly, r.span[0]) // counts days on a clock without changes
		require.NoError(t, err)
		instants := upTo(t, cronOf(t, r.line, r.zone), day.Add(-36*time.Hour), day.AddDate(2, 0, 0))
		instants = slices.DeleteFunc(instants, func(at time.Time) bool {
			return at.Format(time.DateOnly) < r.span[0] || at.Format(time.DateOnly) >= r.span[1]
		})
		for _, at := range instants {
			if skipped[day.Format(time.DateOnly)] == r.zone {
				day = day.AddDate(0, 0, 1)
			}
			if at.Format(time.DateOnly) != day.Format(time.DateOnly) {
				// What falls into a hole across midnight runs after it.
				at = at.Add(-time.Second)
			}
			require.Equal(t, day.Format(time.DateOnly), at.Format(time.DateOnly), "%s in %s at %v", r.line, r.zone, at)
			day = day.AddDate(0, 0, 1)
		}
		require.Equal(t, r.span[1], day.Format(time.DateOnly), "%s in %s", r.line, r.zone)
	}

}

func TestAQuarterHourRuleKeepsItsPace(t *testing.T) {
	t.Parallel()
	for _, zone := range slices.Concat(dstZones, oddZones) {
		rule := cronOf(t, "*/15 * * * *", zone)
		for _, month := range []string{"2026-03", "2026-04", "2026-09", "2026-10", "2026-11", "2044-03", "2044-10", "2044-12"} {
			from, err := time.Parse("2006-01", month)
			require.NoError(t, err)
			to := from.AddDate(0, 1, 2)
			for _, next := range upTo(t, rule, from, to) {
				if next.Sub(from) != 15*time.Minute {
					require.Fail(t, "out of pace", "%s: %v after %v", zone, next, from)
				}
				from = next
			}
			require.Equal(t, 15*time.Minute, to.Sub(from))
		}
	}
}

func TestAPeriodOfAZoneReachesBeyondTheEndOfALeapYear(t *testing.T) {
	t.Parallel()
	for _, zone := range slices.Concat(dstZones, oddZones) {
		loc, err := time.LoadLocation(zone)
		require.NoError(t, err)
		start, end, offset, before := period(loc, time.Date(2044, 12, 31, 12, 0, 0, 0, time.UTC).Unix())
		require.Less(t, start, end, zone)
		require.GreaterOrEqual(t, end, time.Date(2045, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), zone)
		require.Equal(t, offset, before, zone)
	}
}

func randomField(rng *rand.Rand, low, high int) string {
	n := func() int { return low + rng.IntN(high-low+1) }
	switch rng.IntN(7) {
	case 0:
		return fmt.Sprintf("*/%d", 1+rng.IntN(high-low))
	case 1:
		a, b := n(), n()
		return fmt.Sprintf("%d-%d", min(a, b), max(a, b))
	case 2:
		return fmt.Sprintf("%d,%d", n(), n())
	case 3, 4:
		return fmt.Sprint(n())
	}
	return "*"
}

func randomLine(rng *rand.Rand) string {
	return strings.Join([]string{randomField(rng, 0, 59), randomField(rng, 0, 59), randomField(rng, 0, 23), randomField(rng, 1, 28), randomField(rng, 1, 12),
		randomField(rng, 0, 6)}, " ")
}

func TestNextIsTheSameFromAnyInstantBetweenTwoOccurrences(t *testing.T) {
	t.Parallel()
	rng := sample.Rand(t)
	zones := slices.Concat(dstZones, oddZones)
	found := changes(t, "Europe/Berlin", 2024, 2035)
	for range 3000 {
		line, zone := randomLine(rng), zones[rng.IntN(len(zones))]
		rule := cronOf(t, line, zone)
		at := time.Unix(rng.Int64N(100*365*oneDay), rng.Int64N(1e9))
		if rng.IntN(2) == 0 {
			at = time.Unix(found[rng.IntN(len(found))]+rng.Int64N(2*oneDay)-oneDay, 0)
		}
		first := rule.Next(at)
		second := rule.Next(first)
		require.True(t, first.After(at) && second.After(first), "%s in %s after %v: %v, %v", line, zone, at, first, second)
		for range 5 {
			between := first.Add(time.Duration(rng.Int64N(int64(second.Sub(first)))))
			require.Equal(t, second, rule.Next(between), "%s in %s after %v", line, zone, between)
		}
		require.Equal(t, second, rule.Next(first.UTC()))
		require.Equal(t, second, rule.Next(second.Add(-1)))
	}
}

// naive reads a field of a random line without the parser.
func naive(field string, v, low int) bool {
	var a, b int
	if field == "*" {
		return true
	} else if n, _ := fmt.Sscanf(field, "*/%d", &a); n == 1 {
		return (v-low)%a == 0
	} else if n, _ := fmt.Sscanf(field, "%d-%d", &a, &b); n == 2 {
		return a <= v && v <= b
	} else if n, _ := fmt.Sscanf(field, "%d,%d", &a, &b); n == 2 {
		return v == a || v == b
	}
	fmt.Sscanf(field, "%d", &a)
	return v == a
}

func TestRandomLinesMatchWhatANaiveReaderFinds(t *testing.T) {
	t.Parallel()
	rng := sample.Rand(t)
	for range 300 {
		line := randomLine(rng)
		f := strings.Fields(line)
		rule := cronOf(t, line, "")
		from := time.Date(2023, 12, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rng.Int64N(120*oneDay)) * time.Second)
		got := rule.Next(from)
		days := func(at time.Time) bool {
			dom, dow := naive(f[3], at.Day(), 1), naive(f[5], int(at.Weekday()), 0)
			if star := []string{"*", "*/1"}; slices.Contains(star, f[3]) || slices.Contains(star, f[5]) {
				return dom && dow
			}
			return dom || dow
		}
		at := from
		for {
			at = at.Add(time.Second)
			if !naive(f[4], int(at.Month()), 1) || !days(at) {
				at = time.Date(at.Year(), at.Month(), at.Day()+1, 0, 0, -1, 0, time.UTC)
				continue
			}
			if !naive(f[2], at.Hour(), 0) {
				at = at.Truncate(time.Hour).Add(time.Hour - time.Second)
				continue
			}
			if !naive(f[1], at.Minute(), 0) {
				at = at.Truncate(time.Minute).Add(time.Minute - time.Second)
				continue
			}
			if naive(f[0], at.Second(), 0) {
				break
			}
		}
		require.Equal(t, at, got, "%s after %v", line, from)
	}
}

func TestCronLines(t *testing.T) {
	t.Parallel()
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // a Thursday
	for _, row := range []struct{ line, want string }{
		{"* * * * *", "01-01T00:01:00 01-01T00:02:00"},
		{"* * * * * *", "01-01T00:00:01 01-01T00:00:02"},
		{"30 0 12 * * ?", "01-01T12:00:30 01-02T12:00:30"},
		{"  0\t9  *  *  mon-FRI ", "01-01T09:00:00 01-02T09:00:00 01-05T09:00:00"},
		{"0 9 * * Fri-Mon", "01-02T09:00:00 01-03T09:00:00 01-04T09:00:00 01-05T09:00:00 01-09T09:00:00"},
		{"0 22-1 * * *", "01-01T01:00:00 01-01T22:00:00 01-01T23:00:00 01-02T00:00:00 01-02T01:00:00"},
		{"0 9 * * SUN,TUE-SAT/2", "01-01T09:00:00 01-03T09:00:00 01-04T09:00:00 01-06T09:00:00"},
		{"0 0 * * 5-7/2", "01-02T00:00:00 01-04T00:00:00 01-09T00:00:00"},
		{"0 0 * NOV-FEB/2 4", "01-08T00:00:00 01-15T00:00:00"},
		{"0 0 13 * FRI", "01-02T00:00:00 01-09T00:00:00 01-13T00:00:00 01-16T00:00:00"},
		{"0 0 */10 * 5", "01-02T00:00:00 01-09T00:00:00 01-11T00:00:00"},
		{"0 0 * * 7", "01-04T00:00:00 01-11T00:00:00"},
		{"0 0 * * 0", "01-04T00:00:00 01-11T00:00:00"},
		{"5/20 0 1 JAN-MAR *", "01-01T00:05:00 01-01T00:25:00 01-01T00:45:00 02-01T00:05:00"},
		{"0 0 31 * *", "01-31T00:00:00 03-31T00:00:00 05-31T00:00:00"},
		{"0 0 30 2,4 *", "04-30T00:00:00"},
		{"@yearly", ""},
		{"@annually", ""},
		{"@Monthly", "02-01T00:00:00 03-01T00:00:00"},
		{"@weekly", "01-04T00:00:00 01-11T00:00:00"},
		{"@midnight", "01-02T00:00:00 01-03T00:00:00"},
		{"@hourly", "01-01T01:00:00 01-01T02:00:00"},
		{"@every 90s", "01-01T00:01:30 01-01T00:03:00"},
	} {
		wanted := strings.Fields(row.want)
		var got []string
		for _, at := range Preview(cronOf(t, row.line, ""), from, len(wanted)) {
			require.Equal(t, 2026, at.Year(), row.line)
			got = append(got, at.Format("01-02T15:04:05"))
		}
		require.Equal(t, row.want, strings.Join(got, " "), row.line)
		again := cronOf(t, row.line, "Asia/Tokyo")
		text, err := RuleText(again)
		require.NoError(t, err)
		back, err := ParseRule(text)
		require.NoError(t, err)
		require.Equal(t, Preview(again, from, 20), Preview(back, from, 20), text)
	}
	require.Equal(t, from.AddDate(1, 0, 0), cronOf(t, "@yearly", "").Next(from))
	require.Equal(t, from.AddDate(1, 0, 0), cronOf(t, "@annually", "").Next(from))
}

func TestARareLineIsFoundAndTheEndOfTimeIsReached(t *testing.T) {
	t.Parallel()
	leap := cronOf(t, "0 0 29 2 *", "Europe/Berlin")
	require.Equal(t, "2104-02-29T00:00:00+01:00", leap.Next(time.Date(2096, 2, 29, 0, 0, 0, 0, time.UTC)).Format(time.RFC3339))
	leap = cronOf(t, "0 0 29 2 *", "UTC")
	require.Equal(t, "2104-02-29T00:00:00Z", leap.Next(time.Date(2096, 3, 1, 0, 0, 0, 0, time.UTC)).Format(time.RFC3339))
	for _, line := range []string{"0 0 29 2 *", "* * * * * *", "@yearly"} {
		rule := cronOf(t, line, "America/New_York")
		require.True(t, rule.Next(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)).IsZero())
		require.True(t, rule.Next(time.Unix(1<<62, 0)).IsZero())
		for _, early := range []time.Time{{}, time.Unix(-1<<62, 0), time.Unix(-1, 999_999_999)} {
			require.GreaterOrEqual(t, rule.Next(early).Unix(), int64(0))
		}
	}
	require.Equal(t, time.Unix(0, 0).UTC(), cronOf(t, "* * * * * *", "").Next(time.Time{}))
}

func TestABadCronLineIsRefusedAndItsFieldNamed(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("1,", 200) + "1 * * * *"
	for _, row := range []struct{ line, zone, field, value string }{
		{"0 25 * * *", "", `cron line "0 25 * * *", hour`, "25"},
		{"60 * * * *", "", `cron line "60 * * * *", minute`, "60"},
		{"61 * * * * *", "", `cron line "61 * * * * *", second`, "61"},
		{"0 0 0 * *", "", `cron line "0 0 0 * *", day of month`, "0"},
		{"0 0 32 * *", "", `cron line "0 0 32 * *", day of month`, "32"},
		{"0 0 * FOO *", "", `cron line "0 0 * FOO *", month`, "FOO"},
		{"0 0 * 13 *", "", `cron line "0 0 * 13 *", month`, "13"},
		{"0 0 * * 8", "", `cron line "0 0 * * 8", day of week`, "8"},
		{"0 0 * * FRI#2", "", `cron line "0 0 * * FRI#2", day of week`, "FRI#2"},
		{"0 0 * * FRI-MON/2", "", `cron line "0 0 * * FRI-MON/2", day of week`, "FRI-MON/2"},
		{"0 0 L * *", "", `cron line "0 0 L * *", day of month`, "L"},
		{"0 H * * *", "", `cron line "0 H * * *", hour`, "H"},
		{"*/0 * * * *", "", `cron line "*/0 * * * *", minute`, "*/0"},
		{"*/60 * * * *", "", `cron line "*/60 * * * *", minute`, "*/60"},
		{"1-2-3 * * * *", "", `cron line "1-2-3 * * * *", minute`, "1-2-3"},
		{"1/2/3 * * * *", "", `cron line "1/2/3 * * * *", minute`, "1/2/3"},
		{"-1 * * * *", "", `cron line "-1 * * * *", minute`, "-1"},
		{"+1 * * * *", "", `cron line "+1 * * * *", minute`, "+1"},
		{", * * * *", "", `cron line ", * * * *", minute`, ","},
		{"1,,2 * * * *", "", `cron line "1,,2 * * * *", minute`, "1,,2"},
		{"99999999999999999999 * * * *", "", `cron line "99999999999999999999 * * * *", minute`, "99999999999999999999"},
		{"0 0 30 2 *", "", `cron line "0 0 30 2 *", day of month`, "30"},
		{"0 0 31 2,4,jun,9,11 *", "", `cron line "0 0 31 2,4,jun,9,11 *", day of month`, "31"},
		{"", "", `cron line "", number of fields`, ""},
		{"* * * *", "", `cron line "* * * *", number of fields`, ""},
		{"* * * * * * *", "", `cron line "* * * * * * *", number of fields`, ""},
		{"TZ=UTC 0 0 * * *", "", `cron line "TZ=UTC 0 0 * * *", second`, "TZ=UTC"},
		{"TZ=0", "", `cron line "TZ=0", number of fields`, ""},
		{"@reboot", "", `cron line "@reboot"`, "@reboot"},
		{"@daily 5", "", `cron line "@daily 5"`, "@daily 5"},
		{"@every", "", `cron line "@every"`, "@every"},
		{"@every soon", "", `cron line "@every soon", interval`, "soon"},
		{"@every 0s", "", `cron line "@every 0s", interval`, ""},
		{"@every -1m", "", `cron line "@every -1m", interval`, ""},
		{"@every 900000h", "", `cron line "@every 900000h", interval`, ""},
		{"0 0 * * *", "Mars/Olympus", `cron line "0 0 * * *", zone`, "Mars/Olympus"},
		{"0 0 * * *", "Local", `cron line "0 0 * * *", zone`, "Local"},
		{"0 0 * * *", "localtime", `cron line "0 0 * * *", zone`, "localtime"},
		{"0 0 * * *", "../../etc/passwd", `cron line "0 0 * * *", zone`, "../../etc/passwd"},
		{"@every 90s", "nowhere", `cron line "@every 90s", zone`, "nowhere"},
		{long, "", fmt.Sprintf("cron line %q, length", long[:80]+"…"), ""},
	} {
		rule, err := Cron(row.line, row.zone)
		require.Nil(t, rule, row.line)
		var field *FieldError
		require.ErrorAs(t, err, &field, row.line)
		require.Equal(t, row.field, field.Field)
		require.NotEmpty(t, field.Allowed)
		if row.value != "" {
			require.Equal(t, row.value, field.Value)
		}
	}
}

func FuzzCron(f *testing.F) {
	for _, line := range []string{"* * * * *", "0 25 * * *", "*/15 0-23/2 1,15 JAN-MAR MON-FRI", "0 0 29 2 *", "@every 90s", "@daily", "TZ=0", ",",
		"0 0 31 4 *", "0 0 * * 1/3", "*/7 */5 3/9 */2 */5 ?", "0 0 13 * FRI-MON", "30 2 * * *", "@every 1.001s", "5/7 22-1 * * SUN#2", "? ? ? ? ? ?", "0 0 L * 5L"} {
		f.Add(line, "Europe/Berlin", int64(1_774_745_999))
		f.Add(line, "Australia/Lord_Howe", int64(-1))
		f.Add(line, "UTC", int64(1)<<62)
	}
	f.Fuzz(func(t *testing.T, line, zone string, unix int64) {
		rule, err := Cron(line, zone)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			require.Nil(t, rule)
			return
		}
		text, err := RuleText(rule)
		require.NoError(t, err)
		back, err := ParseRule(text)
		require.NoError(t, err, text)
		again, err := RuleText(back)
		require.NoError(t, err)
		require.Equal(t, text, again)
		at, read := time.Unix(unix, 0), readLine(line)
		require.LessOrEqual(t, len(Preview(rule, at, 20)), 20)
		for range 3 {
			next := rule.Next(at)
			require.True(t, next.Equal(back.Next(at)))
			if next.IsZero() {
				require.Greater(t, at.Unix(), int64(lastInstant/1000-maxWait))
				return
			}
			require.True(t, next.After(at), "%s in %s: %v after %v", line, zone, next, at)
			require.Zero(t, next.Nanosecond()%int(time.Millisecond))
			if read != nil {
				require.Zero(t, next.Nanosecond())
				read.check(t, loadedZone(t, zone), at, next)
			}
			if before := at.Add(next.Sub(at) / 2); before.After(at) {
				require.Equal(t, next, rule.Next(before))
			}
			at = next
		}
	})
}

func BenchmarkCronNext(b *testing.B) {
	for _, zone := range []string{"UTC", "Europe/Berlin"} {
		for _, line := range []string{"*/15 * * * *", "30 2 * * *", "0 9 * * MON-FRI", "0 0 1 * *", "0 0 29 2 *"} {
			for _, year := range []int{2026, 2097} {
				rule, at := cronOf(b, line, zone), time.Date(year, 3, 1, 0, 30, 0, 0, time.UTC)
				b.Run(fmt.Sprintf("%s/%s/%d", zone, line, year), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						rule.Next(at)
					}
				})
			}
		}
	}
}
