package dianemo

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// A parcel is what goes to one partition in one piece, small enough for any call.
type parcel struct {
	box     *outbox
	records []Record
	places  []int            // of the records in the caller's request
	ordered bool             // a record has a unique key: it matters which comes first
	reply   chan parcelReply // has room for the one reply

	// Guarded by box.mu.
	left   bool  // the caller has gone
	failed error // why the call that it is in was not answered so far
}

type parcelReply struct {
	answers []error // one for each record
	err     error   // in place of answers
}

// A load is what one call carries.
type load struct {
	cost  int // in jobs without a unique key
	bytes int
	lanes []Lane
}

// laneCost is how much of a call each further lane takes: its queue is a key of its own.
const laneCost = 4

// size is how much of a call it is.
func (l *load) size() int { return l.cost + laneCost*(len(l.lanes)-1) }

// takes loads records, and reports whether they fit. One that did not is to be left.
func (l *load) takes(records []Record, most int) bool {
	for i := range records {
		r := &records[i]
		l.cost += r.cost()
		l.bytes += len(r.Spec)
		if !slices.Contains(l.lanes, r.Lane) {
			l.lanes = append(l.lanes, r.Lane)
		}
	}
	return l.size() <= most && l.bytes <= MaxCallBytes
}

func (c *Client) pack(records []Record) []*parcel {
	type open struct {
		*parcel
		load load
	}
	var parcels []*parcel
	boxes, last := *c.boxes.Load(), map[int]*open{}
	for i, r := range records {
		partition := c.store.Partition(r.ID)
		p := last[partition]
		if p == nil || !p.load.takes(records[i:i+1], firstPace) {
			p = &open{parcel: &parcel{box: boxes[partition], reply: make(chan parcelReply, 1)}}
			p.load.takes(records[i:i+1], firstPace) // the first goes in any case
			last[partition] = p
			parcels = append(parcels, p.parcel)
		}
		p.records = append(p.records, r)
		p.ordered = p.ordered || r.Unique.Key != ""
		p.places = append(p.places, i)
	}
	return parcels
}

// An outbox is what waits to be sent to one partition: the store works at the
// call of one line while the answers of the other are handed out. What comes
// while both have a call under way goes with the next. Jobs with unique keys go by
// the first line alone: a call that nobody waits for any more is refused once a later
// one of its line was there, so that it can't replace what came after it.
type outbox struct {
	partition  int
	mu         sync.Mutex
	queue      []*parcel
	lines      [2]line
	pace       pace
	wakes      []wakeup           // to be sent
	waking     bool               // they are being sent
	lonely     map[News]time.Time // when a wake-up found nobody
	unfolding  map[string]bool    // workflows of schedules whose jobs are being submitted
	heirs      bool               // children are to be released
	delivering bool               // they are being released
	turn       chan struct{}      // held by the one call about schedules that is under way
	calls      uint64             // number of the last one
}

// A line has one call under way at a time, so that its number tells a call sent
// again from a new one.
type line struct {
	sending bool // guarded by the outbox's mu
	call    Call // the last one; only the sender uses it
	unheard complaint
}

func newOutbox(partition int, client string) *outbox {
	box := &outbox{partition: partition, turn: make(chan struct{}, 1), pace: pace{jobs: firstPace, least: firstPace}}
	for i := range box.lines {
		box.lines[i].call.Caller = fmt.Sprintf("%s.%d", client, i)
	}
	return box
}

func (c *Client) post(p *parcel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		p.reply <- parcelReply{err: ErrClosed}
		return
	}
	p.box.mu.Lock()
	defer p.box.mu.Unlock()
	p.box.queue = append(p.box.queue, p)
	for i := range p.box.lines {
		if line := &p.box.lines[i]; !line.sending {
			line.sending = true
			c.sends.Go(func() { c.send(p.box, line) })
			return
		}
	}
}

// await waits for a parcel's reply, or for ctx: then it withdraws the parcel
// if it was not sent yet.
func (c *Client) await(ctx context.Context, p *parcel) parcelReply {
	select {
	case reply := <-p.reply:
		return reply
	case <-ctx.Done():
	}
	p.box.mu.Lock()
	defer p.box.mu.Unlock()
	select {
	case reply := <-p.reply:
		return reply
	default:
	}
	if i := slices.Index(p.box.queue, p); i >= 0 {
		p.box.queue = slices.Delete(p.box.queue, i, i+1)
		return parcelReply{err: fmt.Errorf("dianemo: enqueue: %w", ctx.Err())}
	}
	p.left = true
	if p.failed != nil {
		return parcelReply{err: fmt.Errorf("%w: %w (%w)", ErrUnconfirmed, ctx.Err(), p.failed)}
	}
	return parcelReply{err: fmt.Errorf("%w: %w", ErrUnconfirmed, ctx.Err())}
}

// send empties the outbox by one line, and then ends.
func (c *Client) send(box *outbox, line *line) {
	for {
		// Callers that have just been answered, or are about to post, do so first, and go along.
		runtime.Gosched()
		box.mu.Lock()
		n, load := 0, load{}
		for n < len(box.queue) && (line == &box.lines[0] || !box.queue[n].ordered) && (load.takes(box.queue[n].records, box.pace.jobs) || n == 0) {
			n++
		}
		batch := slices.Clone(box.queue[:n])
		box.queue = slices.Delete(box.queue, 0, n)
		line.sending = n > 0
		box.mu.Unlock()
		if n == 0 {
			return
		}
		c.deliver(box, line, batch)
	}
}

// deliver sends parcels together and hands out the answers. Records whose slot
// changed hands meanwhile are sent again.
func (c *Client) deliver(box *outbox, line *line, batch []*parcel) {
	records := batch[0].records
	if len(batch) > 1 {
		records = nil
		for _, p := range batch {
			records = append(records, p.records...)
		}
	}
	answers := make([]error, len(records))
	places := make([]int, len(records)) // of the records that have no answer yet
	for i := range places {
		places[i] = i
	}
	var err error
	for try := 1; ; try++ {
		var reply EnqueueReply
		if reply, err = c.transmit(box, line, batch, records); err != nil {
			break
		}
		for i, place := range places {
			if reply.Existing[i] == "" {
				continue
			}
			taken := &ExistsError{ID: records[i].ID, State: reply.Existing[i]}
			if id, ok := reply.Holders[i]; ok {
				taken.ID, taken.Key = id, records[i].Unique.Key
			}
			answers[place] = taken
		}
		c.wake(box.partition, "", reply.News...)
		if len(reply.Moved) == 0 {
			places = nil
			break
		}
		left, leftPlaces := make([]Record, len(reply.Moved)), make([]int, len(reply.Moved))
		for i, at := range reply.Moved {
			left[i], leftPlaces[i] = records[at], places[at]
		}
		if records, places = left, leftPlaces; try == maxMoves {
			err = ErrMoved
			break
		}
	}
	for _, place := range places {
		answers[place] = err
	}
	for _, p := range batch {
		p.reply <- parcelReply{answers: answers[:len(p.records)]}
		answers = answers[len(p.records):]
	}
}

// maxMoves is how often a change is tried whose job has moved each time.
const maxMoves = 20

// transmit makes one call, with a number of its own, until it is answered or
// nobody waits for it any more.
func (c *Client) transmit(box *outbox, line *line, batch []*parcel, records []Record) (EnqueueReply, error) {
	line.call.Number++
	for attempt := 1; ; attempt++ {
		begin := time.Now()
		reply, err := c.store.Enqueue(c.ctx, box.partition, line.call, records)
		c.mended(box.partition, err)
		line.unheard.about(c.logger, err, "an enqueue is not answered; trying again", "partition", box.partition)
		if err == nil {
			box.learn(time.Since(begin), records)
			return reply, nil
		}
		if errors.Is(err, ErrStoreFull) || errors.Is(err, ErrSuperseded) || !box.awaited(batch, err) {
			return reply, err
		}
		if !pause(c.ctx, backoff(attempt, 20*time.Millisecond, time.Second)) {
			return reply, fmt.Errorf("%w: %w: %w", ErrUnconfirmed, ErrClosed, err)
		}
		if !box.awaited(batch, err) { // the last one left meanwhile, and may be giving up what this would still write
			return reply, err
		}
	}
}

// learn takes in how long a call took that carried records. Where the other line has one under
// way, half of what the store worked was that one's.
func (b *outbox) learn(took time.Duration, records []Record) {
	var carried load
	carried.takes(records, 0)
	b.mu.Lock()
	defer b.mu.Unlock()
	under := 1
	if b.lines[0].sending && b.lines[1].sending {
		under = 2
	}
	b.pace.learn(took, carried.size(), under)
}

// awaited reports whether anybody waits for one of these parcels, and keeps why
// they have to.
func (b *outbox) awaited(batch []*parcel, err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	waits := false
	for _, p := range batch {
		p.failed = err
		waits = waits || !p.left
	}
	return waits
}
