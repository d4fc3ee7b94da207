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

// A parcel is what goes to one partition in one piece.
type parcel struct {
	box     *outbox
	records []Record
	places  []int // of the records in the caller's request
	bytes   int
	cost    int              // in jobs without a unique key
	reply   chan parcelReply // has room for the one reply
	left    bool             // the caller has gone; guarded by box.mu
}

type parcelReply struct {
	answers []error // one for each record
	err     error   // in place of answers
}

func (c *Client) pack(records []Record) []*parcel {
	var parcels []*parcel
	boxes, open := *c.boxes.Load(), map[int]*parcel{}
	for i, r := range records {
		partition := c.store.Partition(r.ID)
		p := open[partition]
		if p == nil || p.cost+r.cost() > MaxCallJobs || p.bytes+len(r.Spec) > MaxCallBytes {
			p = &parcel{box: boxes[partition], reply: make(chan parcelReply, 1)}
			open[partition] = p
			parcels = append(parcels, p)
		}
		p.records = append(p.records, r)
		p.places = append(p.places, i)
		p.bytes += len(r.Spec)
		p.cost += r.cost()
	}
	return parcels
}

// An outbox is what waits to be sent to one partition. One call is under way
// at a time, so that its number tells a call sent again from a new one; what
// comes meanwhile goes with the next.
type outbox struct {
	partition  int
	mu         sync.Mutex
	queue      []*parcel
	sending    bool
	number     uint64 // of the last call; only the sender uses it
	failed     error  // why the call under way was not answered so far
	unheard    complaint
	wakes      []wakeup           // to be sent
	waking     bool               // they are being sent
	lonely     map[News]time.Time // when a wake-up found nobody
	unfolding  map[string]bool    // workflows of schedules whose jobs are being submitted
	heirs      bool               // children are to be released
	delivering bool               // they are being released
	turn       chan struct{}      // held by the one call about schedules that is under way
	calls      uint64             // number of the last one
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
	if !p.box.sending {
		p.box.sending = true
		c.sends.Go(func() { c.send(p.box) })
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
	if p.box.failed != nil {
		return parcelReply{err: fmt.Errorf("%w: %w (%w)", ErrUnconfirmed, ctx.Err(), p.box.failed)}
	}
	return parcelReply{err: fmt.Errorf("%w: %w", ErrUnconfirmed, ctx.Err())}
}

// send empties the outbox, and then ends.
func (c *Client) send(box *outbox) {
	for {
		// Callers that have just been answered, or are about to post, do so first, and go along.
		runtime.Gosched()
		box.mu.Lock()
		var batch []*parcel
		jobs, bytes := 0, 0
		for _, p := range box.queue {
			if len(batch) > 0 && (jobs+p.cost > MaxCallJobs || bytes+p.bytes > MaxCallBytes) {
				break
			}
			batch = append(batch, p)
			jobs, bytes = jobs+p.cost, bytes+p.bytes
		}
		box.queue = slices.Delete(box.queue, 0, len(batch))
		box.sending = len(batch) > 0
		box.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		c.deliver(box, batch)
	}
}

// deliver sends parcels together and hands out the answers. Records whose slot
// changed hands meanwhile are sent again.
func (c *Client) deliver(box *outbox, batch []*parcel) {
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
		if reply, err = c.transmit(box, batch, records); err != nil {
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
func (c *Client) transmit(box *outbox, batch []*parcel, records []Record) (reply EnqueueReply, err error) {
	box.number++
	for attempt := 1; ; attempt++ {
		reply, err = c.store.Enqueue(c.ctx, box.partition, Call{c.id, box.number}, records)
		c.mended(box.partition, err)
		box.unheard.about(c.logger, err, "an enqueue is not answered; trying again", "partition", box.partition)
		if err == nil || errors.Is(err, ErrStoreFull) || errors.Is(err, ErrSuperseded) || !box.awaited(batch, err) {
			break
		}
		if !pause(c.ctx, backoff(attempt, 20*time.Millisecond, time.Second)) {
			err = fmt.Errorf("%w: %w: %w", ErrUnconfirmed, ErrClosed, err)
			break
		}
	}
	box.mu.Lock()
	box.failed = nil
	box.mu.Unlock()
	return reply, err
}

// awaited reports whether anybody waits for one of these parcels, and keeps why
// they have to.
func (b *outbox) awaited(batch []*parcel, err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = err
	return slices.ContainsFunc(batch, func(p *parcel) bool { return !p.left })
}
