package main

import (
	"container/heap"
	"time"
)

// A clock is virtual time, and what is to happen in it. What is due at the same time happens in the order in which it was
// planned, so that a seed decides everything.
type clock struct {
	now    time.Duration
	events events
	number uint64 // of the last event
}

type event struct {
	at     time.Duration
	number uint64
	do     func()
}

func (c *clock) at(t time.Duration, do func()) {
	c.number++
	heap.Push(&c.events, event{max(t, c.now), c.number, do})
}

func (c *clock) in(d time.Duration, do func()) { c.at(c.now+d, do) }

// run lets time pass. after is called after each event.
func (c *clock) run(until time.Duration, after func()) {
	for len(c.events) > 0 && c.events[0].at <= until {
		e := heap.Pop(&c.events).(event)
		c.now = e.at
		e.do()
		after()
	}
	c.now = until
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].number < e[j].number
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	old[len(old)-1] = event{} // so that what it refers to can be freed
	*e = old[:len(old)-1]
	return last
}
