package main

import (
	"fmt"
	"strconv"
	"strings"
)

// The figures.
const (
	enqueueOne  = "enqueue one by one, 32 callers"
	enqueueBulk = "enqueue in bulk"
	memory      = "Redis memory of a waiting job"
	drain512    = "drain, 512 at a time"
	drain64     = "drain, 64 at a time"
	life        = "from enqueue to the end, in bulk"
	pickUpP50   = "pick-up when idle, p50"
	pickUpP99   = "pick-up when idle, p99"
)

// A target is a limit of Dianemo's figure: of its ratio to another's, or of itself. Where
// that is the floor, it is the floor's for a whole life: what is pushed, popped and
// acknowledged.
type target struct {
	to    string // a system; "": itself
	limit float64
	most  bool // it may be at most this, else at least
}

var rows = []struct {
	figure, unit string
	targets      []target
}{
	{drain512, "jobs/s", []target{{asynqName, 8, false}, {floorName, 0.5, false}}},
	{drain64, "jobs/s", []target{{asynqName, 5, false}}},
	{enqueueOne, "jobs/s", []target{{asynqName, 1.5, false}}},
	{enqueueBulk, "jobs/s", []target{{floorName, 0.6, false}}},
	{life, "jobs/s", nil},
	{memory, "bytes", []target{{asynqName, 0.75, true}}},
	{pickUpP50, "µs", []target{{"", 1000, true}}},
	{pickUpP99, "µs", []target{{"", 3000, true}}},
}

// footnotes say what makes the figures comparable.
const footnotes = `
asynq: one queue, finished tasks are deleted (its default), its log off, 512 or 64 workers, 128 connections
(default: 10 for each CPU); workers look for tasks each millisecond (default: each second), to pick up as soon as they can.
It has no call for many, so its bulk is 32 callers, one by one.
floor: RPUSH, 500 a call; a script that pops 100 and leases them in a sorted set; ZREM; 4 connections. No states,
retries or results, and nobody waits for jobs. Targets that name it mean its rate from push to acknowledgement.
Dianemo: default retention, no hooks, the load not looked at.
`

func (c *comparison) table() string {
	var t strings.Builder
	const line = "%-32s %-7s %10s %10s %10s %9s %9s   %s\n"
	fmt.Fprintf(&t, line, "", "", dianemoName, asynqName, floorName, "÷ "+asynqName, "÷ "+floorName, "target")
	for _, r := range rows {
		own := c.median(r.figure, dianemoName)
		ratio := func(to string) string {
			if other := c.median(r.figure, to); other > 0 {
				return number(own / other)
			}
			return "–"
		}
		value := func(of string) string {
			if v := c.median(r.figure, of); v >= 0 {
				return number(v)
			}
			return "–"
		}
		var targets []string
		for _, g := range r.targets {
			other := c.median(r.figure, g.to)
			if g.to == floorName {
				other = c.median(life, floorName)
			}
			targets = append(targets, g.judge(own, other, r.unit))
		}
		fmt.Fprintf(&t, line, r.figure, r.unit, value(dianemoName), value(asynqName), value(floorName), ratio(asynqName), ratio(floorName),
			strings.Join(targets, ", "))
	}
	t.WriteString(footnotes)
	return t.String()
}

// judge says what the target is and whether it is met.
func (g target) judge(own, other float64, unit string) string {
	value, of := own, " "+unit
	if g.to != "" {
		value, of = own/other, fmt.Sprintf(" × %s (%s)", g.to, number(own/other))
	}
	sign, met := "≥", value >= g.limit
	if g.most {
		sign, met = "≤", value <= g.limit
	}
	word := "missed"
	if met {
		word = "met"
	}
	return fmt.Sprintf("%s %s%s: %s", sign, strconv.FormatFloat(g.limit, 'g', -1, 64), of, word)
}

func number(v float64) string {
	if v < 100 {
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}
