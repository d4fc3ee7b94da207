package history

import "time"

// A clock tells the store's time from the moments of this host, between bounds. An epoch is the
// store's time in µs when the job was claimed, or one more than the last: so a claim was made before it
// was written down, and after the job was asked for, and that says what the clocks are apart.
//
// It is known only if all epochs agree that it can be: an engine whose epochs are no times, or a clock
// that was set, makes nothing wrong here.
type clock struct {
	known bool
	// What Unix time, in ns, is ahead of moments: at least, at most.
	least, most int64
}

// drift is what clocks may come to differ by while a test lasts: NTP slews by at most 0.5 ms in a second.
const drift = 100 * time.Millisecond

func clockOf(a *account) clock {
	var c clock
	lower, upper := false, false
	for _, j := range a.jobs {
		for _, r := range j.runs {
			seen := r.claim
			if seen == nil {
				seen = r.start
			}
			if seen == nil {
				continue
			}
			if d := r.epoch*1000 - int64(seen.At); !lower || d > c.least {
				c.least, lower = d, true
			}
			if j.of == nil || len(j.of.invokes) == 0 {
				continue
			}
			if d := r.epoch*1000 - int64(j.of.invokes[0].At); !upper || d < c.most {
				c.most, upper = d, true
			}
		}
	}
	c.known = lower && upper && c.least <= c.most+int64(drift)
	return c
}

// claimed is between which moments the run of that epoch was claimed.
func (c clock) claimed(epoch int64) (from, to Moment) { return c.moments(epoch * 1000) }

// instant is between which moments Unix time was so many ms.
func (c clock) instant(ms int64) (from, to Moment) { return c.moments(ms * 1e6) }

func (c clock) moments(unix int64) (from, to Moment) {
	return Moment(unix - max(c.least, c.most)).Add(-drift), Moment(unix - min(c.least, c.most)).Add(drift)
}

// unix is between which ms of Unix time a moment was.
func (c clock) unix(m Moment) (from, to int64) {
	return (int64(m.Add(-drift)) + min(c.least, c.most)) / 1e6, (int64(m.Add(drift)) + max(c.least, c.most)) / 1e6
}
