package main

import (
	"fmt"
	"strings"
	"time"
)

// A Cost is what one call costs a node, with nothing in it, and each job, run or partition in it.
type Cost struct {
	Fixed, Each           time.Duration
	FixedBytes, EachBytes float64 // both ways
}

func (c Cost) of(n int) (time.Duration, float64) {
	return c.Fixed + time.Duration(n)*c.Each, c.FixedBytes + float64(n)*c.EachBytes
}

// Costs are those of all sorts of calls.
type Costs [sorts]Cost

const micro = time.Microsecond

func micros(us float64) time.Duration { return time.Duration(us * float64(micro)) }

// DefaultCosts were measured by -measure; see docs/capacity.md.
var DefaultCosts = Costs{
	enqueue: {micros(76), micros(4.8), 503, 165},
	claim:   {micros(159), micros(7.5), 917, 182},
	empty:   {micros(81), 0, 805, 0},
	settle:  {micros(82), micros(5.9), 651, 37},
	beat:    {micros(66), micros(4.4), 301, 72},
	survey:  {micros(45), micros(10.7), 153, 206},
	chore:   {micros(150), 0, 1000, 0},
	wake:    {micros(83), 0, 467, 0},
	nobody:  {micros(47), 0, 328, 0},
	stand:   {micros(58), 0, 277, 0},
	present: {micros(65), 0, 712, 0},
	lead:    {micros(45), 0, 235, 0},
}

// Set changes some, as -cost says: name=fixed or name=fixed+each, in µs, separated by commas.
func (c *Costs) Set(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(part, "=")
		var fixed, each float64
		n, _ := fmt.Sscanf(value, "%g+%g", &fixed, &each)
		at := sort(0)
		for ; at < sorts && sortNames[at] != name; at++ {
		}
		if !ok || n == 0 || at == sorts || fixed < 0 || each < 0 {
			return fmt.Errorf("%q: name=fixed or name=fixed+each in µs, of %s", part, strings.Join(sortNames[:], ", "))
		}
		c[at].Fixed, c[at].Each = micros(fixed), micros(each)
	}
	return nil
}

func (c *Costs) String() string { return "" }
