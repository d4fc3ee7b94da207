package main

import "time"

// A producer is a client that enqueues. To each partition it makes one call at a time, and what comes meanwhile goes with the
// next; the same goes for the wake-ups.
type producer struct {
	*world
	boxes map[int]*outbox
}

type outbox struct {
	jobs    []job
	sending bool
	again   int // attempts that failed
	waker
}

// A waker sends wake-ups for one partition: all are alike here, so one waits at most.
type waker struct {
	wanted, waking bool
}

func newProducer(w *world) *producer { return &producer{w, map[int]*outbox{}} }

// arrive is one call of EnqueueMany, and plans the next, for as long as there is a rate.
func (w *world) arrive() {
	if w.Rate == 0 {
		return
	}
	gap := float64(w.Batch) / w.Rate
	if !w.Steady {
		gap *= w.rng.ExpFloat64()
	}
	w.in(time.Duration(gap*float64(time.Second)), w.arrive)
	p := w.producers[w.rng.IntN(len(w.producers))]
	for range w.Batch {
		at := w.rng.IntN(len(w.partitions))
		box := p.boxes[at]
		if box == nil {
			box = &outbox{}
			p.boxes[at] = box
		}
		box.jobs = append(box.jobs, w.newJob())
		if !box.sending {
			box.sending = true
			w.at(w.now, func() { p.deliver(at, box) }) // with what else comes in this call
		}
	}
}

const maxCall = 500 // jobs

func (p *producer) deliver(at int, box *outbox) {
	n := min(len(box.jobs), maxCall)
	if box.sending = n > 0; !box.sending {
		return
	}
	batch := box.jobs[:n:n]
	news := false
	p.of(at).send(call{enqueue, 0, func() (sort, int) {
		lane := &p.partitions[at].lane
		news = len(*lane) == 0
		*lane = append(*lane, batch...)
		return enqueue, n
	}, func(ok bool) {
		if !ok {
			box.again++
			p.in(p.pause(box.again, 20*time.Millisecond, time.Second), func() { p.deliver(at, box) })
			return
		}
		box.jobs, box.again = box.jobs[n:], 0
		if news {
			p.wake(at, &box.waker, nil, func(bool) {})
		}
		p.deliver(at, box)
	}})
}

// wake tells the fleet of work in a partition, of one caller one at a time.
func (w *world) wake(at int, k *waker, except *peer, answer func(told bool)) {
	k.wanted = true
	if k.waking {
		return
	}
	k.waking, k.wanted = true, false
	told := false
	w.common().send(call{wake, 0, func() (is sort, n int) {
		is, told = w.tell(at, except)
		return is, 0
	}, func(ok bool) {
		k.waking = false
		if ok {
			answer(told)
		}
		if k.wanted {
			w.wake(at, k, except, answer)
		}
	}})
}
