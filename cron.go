package dianemo

import (
	"fmt"
	"math/bits"
	"strings"
	"time"

	// A container from scratch and a plain Windows have no zone database, and a
	// schedule that can be declared on one machine must be computable on every
	// other. It adds 0.4 MB to a program; the system's own data, if there are any,
	// come first.
	_ "time/tzdata"

	gocron "github.com/netresearch/go-cron"
)

// Cron is due whenever the clock in a zone shows a time that the line matches.
// The line has five fields (minute, hour, day of month, month, day of week), six
// with seconds first, or is one of @yearly, @annually, @monthly, @weekly, @daily,
// @midnight, @hourly and @every with a duration, which is an [Interval]. A field
// is a list of numbers, names (JAN, MON), ranges (9-17, FRI-MON) and steps
// (*/15), or * or ?. Sunday is 0 and 7. If both the day of month and the day of
// week are restricted, a day that matches either one is meant, as in crontab(5).
// The zone is an IANA name; "" is UTC. The next instant is returned in this zone.
//
// What happens when clocks are changed:
//
//   - A rule for times of day, that is one whose hours are listed (30 2 * * *),
//     runs once at each of them. Those in the hour that does not exist run at the
//     first instant after it, all of them together as one; those in the hour that
//     exists twice run the first time only. So a daily job runs once on each day.
//   - A rule for every hour (*/15 * * * *) keeps its pace through both: it skips
//     what does not exist and runs in both of the hours that look the same. Where
//     clocks change by half an hour (Australia/Lord_Howe), what is due on the hour
//     is due on the hour that is shown: once 90 minutes after the one before.
//   - A rule for every n-th hour (0 */2 * * *) loses nothing either: it runs at the
//     first instant after the hour that does not exist, if that is one of its own,
//     and in both of those that look the same.
//
// Zones follow the machine's zone database; a copy is built in for machines that
// have none.
//
// A line that is wrong or can never match, and an unknown zone, are [FieldError]s
// that quote the line and name the field. The time zone Local is refused: it
// differs between machines.
func Cron(line, zone string) (Rule, error) {
	quoted := line
	if len(quoted) > maxQuoted {
		quoted = quoted[:maxQuoted] + "…"
	}
	in := fmt.Sprintf("cron line %q", quoted)
	loc, err := loadZone(in, zone)
	if err != nil {
		return nil, err
	}
	if len(line) > maxCron {
		return nil, &FieldError{in + ", length", len(line), fmt.Sprintf("at most %d bytes", maxCron)}
	}
	words := strings.Fields(line)
	if len(words) > 0 && strings.HasPrefix(words[0], "@") {
		return newDescriptor(in, words, loc)
	}
	return newCron(in, words, strings.ToUpper(strings.Join(words, " ")), loc)
}

const (
	maxCron   = 256 // bytes of a cron line
	maxQuoted = 80  // bytes of it in an error
)

var descriptors = map[string]string{
	"@yearly":   "0 0 1 1 *",
	"@annually": "0 0 1 1 *",
	"@monthly":  "0 0 1 * *",
	"@weekly":   "0 0 * * 0",
	"@daily":    "0 0 * * *",
	"@midnight": "0 0 * * *",
	"@hourly":   "0 * * * *",
}

// cronFields are the fields of a line with seconds. Each is read by a parser of
// its own, so that an error can name it.
//
// Of the parsers, netresearch/go-cron was chosen, and only for the syntax of a
// field. Seen in November 2026: robfig/cron v3.0.1 is of January 2020, without a
// maintainer, and panics ("TZ=0"); adhocore/gronx v1.20.4 is maintained, but takes
// "1-2-3/4/5" for a minute, needs four to ten times as long, and reads the line
// anew each time; netresearch/go-cron v0.9.1 is a maintained fork of robfig's
// without dependencies, bounds its search and hands out the parsed bits. None
// keeps our promises when clocks change: at 02:30 in Berlin's missing hour
// robfig and gronx skip the day and go-cron runs at 03:30, it skips Lord Howe's
// half hour, and robfig and go-cron give up on 29 February before 2104. So the
// walk is ours.
var cronFields = [...]struct {
	name    string
	allowed string
	parser  gocron.Parser
	bits    func(*gocron.SpecSchedule) uint64
}{
	{"second", "0 to 59, as in 5,10, 0-30, */15 or *", gocron.MustNewParser(gocron.Second),
		func(s *gocron.SpecSchedule) uint64 { return s.Second }},
	{"minute", "0 to 59, as in 5,10, 0-30, */15 or *", gocron.MustNewParser(gocron.Minute),
		func(s *gocron.SpecSchedule) uint64 { return s.Minute }},
	{"hour", "0 to 23, as in 2,14, 9-17, */2 or *", gocron.MustNewParser(gocron.Hour),
		func(s *gocron.SpecSchedule) uint64 { return s.Hour }},
	{"day of month", "1 to 31, as in 1,15, 1-7, */2 or *", gocron.MustNewParser(gocron.Dom),
		func(s *gocron.SpecSchedule) uint64 { return s.Dom }},
	{"month", "1 to 12 or JAN to DEC, as in 1,7, MAR-OCT, */3 or *", gocron.MustNewParser(gocron.Month),
		func(s *gocron.SpecSchedule) uint64 { return s.Month }},
	{"day of week", "0 to 7 or SUN to SAT, as in 1,3, MON-FRI or *", gocron.MustNewParser(gocron.Dow),
		func(s *gocron.SpecSchedule) uint64 { return s.Dow }},
}

// starBit is set by the parser where a field was * or ? without a step.
const starBit = 1 << 63

// A cronRule has a bit for each value that matches.
type cronRule struct {
	second, minute, hour, day, month, weekday uint64

	eitherDay bool // both days are restricted, and one of them is enough
	everyHour bool
	paced     bool // every hour or every n-th: both of two equal hours count
	zone      *time.Location
	line      string // in canonical form
}

func loadZone(in, name string) (*time.Location, error) {
	refused := &FieldError{in + ", zone", name, "an IANA name such as Europe/Berlin, or UTC"}
	// Debian has a file localtime among its zones. A blank would not survive
	// RuleText.
	if strings.EqualFold(name, "local") || strings.EqualFold(name, "localtime") || len(name) > MaxName || strings.ContainsAny(name, " \t\n\r\\") {
		return nil, refused
	}
	zone, err := time.LoadLocation(name)
	if err != nil { // its text adds nothing to the name
		return nil, refused
	}
	return zone, nil
}

func newDescriptor(in string, words []string, zone *time.Location) (Rule, error) {
	word := strings.ToLower(words[0])
	if line, ok := descriptors[word]; ok && len(words) == 1 {
		return newCron(in, strings.Fields(line), word, zone)
	}
	if word != "@every" || len(words) != 2 {
		return nil, &FieldError{in, strings.Join(words, " "),
			"@yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, or @every with a duration such as 90s"}
	}
	d, err := time.ParseDuration(words[1])
	if err != nil {
		return nil, &FieldError{in + ", interval", words[1], "a duration such as 90s or 1h30m"}
	}
	return newInterval(in+", interval", d, 0)
}

func newCron(in string, words []string, line string, zone *time.Location) (Rule, error) {
	if len(words) == len(cronFields)-1 {
		words = append([]string{"0"}, words...)
	}
	if len(words) != len(cronFields) {
		return nil, &FieldError{in + ", number of fields", len(words),
			"5 (minute, hour, day of month, month, day of week), 6 with seconds first, or a word such as @daily"}
	}
	var set [len(cronFields)]uint64
	for i, f := range cronFields {
		field := strings.ToUpper(words[i])
		refused := &FieldError{in + ", " + f.name, words[i], f.allowed}
		if strings.Contains(field, "/") {
			refused.Allowed += "; a step is less than its range" // so */60 is refused for minutes: it would be every hour
		}
		// The parser passes over what is empty in a list and knows more than this
		// library promises: zones, hashes, last days.
		if strings.Trim(field, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ*?/,-") != "" || strings.Contains(","+field+",", ",,") {
			return nil, refused
		}
		var ok bool
		if set[i], ok = parseField(i, field); !ok {
			return nil, refused
		}
		if i == len(cronFields)-1 && stepsOverSunday(field) {
			refused.Allowed = "a step within one week, from SUN to SAT"
			return nil, refused
		}
	}
	r := &cronRule{
		second: set[0] &^ starBit, minute: set[1] &^ starBit, hour: set[2] &^ starBit,
		day: set[3] &^ starBit, month: set[4] &^ starBit, weekday: set[5] &^ starBit,
		eitherDay: set[3]&starBit == 0 && set[5]&starBit == 0,
		zone:      zone,
		line:      line,
	}
	r.everyHour = bits.OnesCount64(r.hour) == 24
	r.paced = r.everyHour || bits.OnesCount64(r.hour) > 1 && stepped(words[2])
	if _, ok := r.clock(0); !ok {
		return nil, &FieldError{in + ", day of month", words[3], "a day that exists in month " + words[4]}
	}
	return r, nil
}

// parseField returns the bits of a field, and false if it is wrong or empty: the
// parser's error says no more than cronFields does.
func parseField(i int, field string) (uint64, bool) {
	schedule, err := cronFields[i].parser.Parse(field)
	if err != nil {
		return 0, false
	}
	spec, ok := schedule.(*gocron.SpecSchedule)
	if !ok || len(spec.DomConstraints)+len(spec.DowConstraints) > 0 {
		return 0, false
	}
	set := cronFields[i].bits(spec)
	return set, set&^starBit != 0
}

// stepsOverSunday reports whether a valid list of weekdays has a range such as
// FRI-MON/2. The parser counts Sunday twice there, as 7 and as 0.
func stepsOverSunday(weekdays string) bool {
	for part := range strings.SplitSeq(weekdays, ",") {
		span, _, step := strings.Cut(part, "/")
		if first, last, ok := strings.Cut(span, "-"); ok && step && last != "7" {
			from, _ := parseField(len(cronFields)-1, first)
			to, _ := parseField(len(cronFields)-1, last)
			if from > to {
				return true
			}
		}
	}
	return false
}

// stepped reports whether a field steps over all of its hours, as */2 does.
func stepped(hours string) bool {
	for part := range strings.SplitSeq(hours, ",") {
		switch base, _, _ := strings.Cut(part, "/"); base {
		case "*", "?", "0-23":
			return true
		}
	}
	return false
}

// Next walks from one change of the zone's offset to the next. In between, the
// clock that is shown differs from UTC by a constant, and matching is arithmetic:
// less than a microsecond for common lines, some ten where 29 February is eight
// years and sixteen changes away.
func (r *cronRule) Next(after time.Time) time.Time {
	if after.Unix() > lastInstant/1000 {
		return time.Time{}
	}
	now := max(after.Unix()+1, 0) // a rule has whole seconds
	for limit := now + maxWait; now < limit; {
		start, end, offset, before := period(r.zone, now)
		from := now + offset
		switch {
		case before < offset && now == start && !r.everyHour && offset-before < oneDay:
			// The clock was just set forward. Not where it skipped a whole day (Samoa in
			// 2011): that day does not exist.
			if missed, ok := r.clock(start + before); ok && missed < start+offset {
				return r.instant(now)
			}
		case before > offset && !r.paced:
			// It was set back, and has shown all this once.
			from = max(from, start+before)
		}
		// The clock shows `from` within 9 years or never.
		if shown, ok := r.clock(from); ok && shown-offset < end {
			return r.instant(shown - offset)
		}
		now = end
	}
	return time.Time{}
}

func (r *cronRule) instant(unix int64) time.Time {
	if unix > lastInstant/1000 {
		return time.Time{}
	}
	return time.Unix(unix, 0).In(r.zone)
}

func (r *cronRule) text() string   { return "cron " + r.zone.String() + " " + r.line }
func (r *cronRule) String() string { return r.text() }

const (
	oneDay   = 24 * 60 * 60
	maxYears = 8 // from one 29 February to the next, around 2100
	maxWait  = (maxYears + 1) * 366 * oneDay
)

// period is the time around unix in which the zone's offset is the same: from
// start until end, in seconds since 1970, and its offset. Before is the offset
// before start; it is looked up only if that is within two days, otherwise it
// equals offset.
func period(zone *time.Location, unix int64) (start, end, offset, before int64) {
	at := time.Unix(unix, 0).In(zone)
	first, last := at.ZoneBounds()
	_, seconds := at.Zone()
	offset, before = int64(seconds), int64(seconds)
	start, end = first.Unix(), last.Unix()
	switch {
	case last.IsZero(): // for ever
		end = lastInstant
	case end <= unix:
		// Package time takes all years for 365 days where it works from a zone's
		// general rule: on 31 December of a leap year the period ends before it began.
		// It really reaches into the next year.
		end = time.Date(at.UTC().Year()+1, time.January, 1, 0, 0, 0, 0, time.UTC).Unix()
	}
	if !first.IsZero() && unix-start < 2*oneDay {
		_, seconds = time.Unix(start-1, 0).In(zone).Zone()
		before = int64(seconds)
	}
	return start, max(end, unix+1), offset, before
}

// clock returns the first time from `from` on that the rule matches on a clock
// that is never changed. Both are in seconds since 1970 as such a clock shows
// them. It looks no further than maxYears.
func (r *cronRule) clock(from int64) (int64, bool) {
	today := from / oneDay
	if from < 0 { // an offset west of UTC, in the first hours of 1970
		today--
	}
	year, month, dom := time.Unix(today*oneDay, 0).UTC().Date()
	midnight, ok := r.firstDay(year, month, dom)
	if !ok {
		return 0, false
	}
	if midnight == today*oneDay {
		if shown, ok := r.timeOfDay(from - midnight); ok {
			return midnight + shown, true
		}
		if midnight, ok = r.firstDay(year, month, dom+1); !ok {
			return 0, false
		}
	}
	shown, _ := r.timeOfDay(0) // no field is empty
	return midnight + shown, true
}

// firstDay returns the midnight of the first day from this one on that matches.
func (r *cronRule) firstDay(year int, month time.Month, dom int) (int64, bool) {
	for last := year + maxYears; year <= last; {
		if r.month>>month&1 != 0 {
			first := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
			days := r.days(year, month, first.Weekday()) >> dom << dom
			if days != 0 {
				return first.Unix() + int64(bits.TrailingZeros64(days)-1)*oneDay, true
			}
		}
		month, dom = month+1, 1
		if month > time.December {
			year, month = year+1, time.January
		}
	}
	return 0, false
}

// days has a bit for each day of a month that matches, from 1; first is the
// weekday of the 1st.
func (r *cronRule) days(year int, month time.Month, first time.Weekday) uint64 {
	week := (r.weekday>>first | r.weekday<<(7-first)) & (1<<7 - 1) // from the 1st on
	weekdays := (week | week<<7 | week<<14 | week<<21 | week<<28) << 1
	days := r.day & weekdays
	if r.eitherDay {
		days = r.day | weekdays
	}
	return days & (2<<daysIn(year, month) - 1)
}

func daysIn(year int, month time.Month) int {
	switch month {
	case time.April, time.June, time.September, time.November:
		return 30
	case time.February:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// timeOfDay returns the first second of a day from `from` on that matches.
func (r *cronRule) timeOfDay(from int64) (int64, bool) {
	hour, minute, second := int(from/3600), int(from/60%60), int(from%60)
	second, ok := nextBit(r.second, second)
	if !ok {
		minute, second = minute+1, bits.TrailingZeros64(r.second)
	}
	next, ok := nextBit(r.minute, minute)
	if !ok {
		hour = hour + 1
	}
	if !ok || next != minute {
		second = bits.TrailingZeros64(r.second)
	}
	if !ok {
		next = bits.TrailingZeros64(r.minute)
	}
	minute = next
	next, ok = nextBit(r.hour, hour)
	if next != hour {
		minute, second = bits.TrailingZeros64(r.minute), bits.TrailingZeros64(r.second)
	}
	return int64(next)*3600 + int64(minute)*60 + int64(second), ok
}

// nextBit returns the first bit from n on that is set.
func nextBit(set uint64, n int) (int, bool) {
	set = set >> n << n
	return bits.TrailingZeros64(set), set != 0
}
