package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A spec is the part of a job that does not change, as far as the indexes depend on it.
type spec struct {
	lane
	weight   int64 // as it was said
	reruns   int64 // -1: none
	runAt    int64 // ms; 0: delay counts
	delay    int64 // ns
	enqueued int64 // ms
	size     int
	schedule string
	at       int64 // ms
	workflow string
	many     int64
	parents  map[string]bool
}

// parseSpec reads the version, fields of a tag, a length and so many bytes, and behind them 13
// digits: when it was enqueued (ms).
func parseSpec(s string) (*spec, error) {
	const stamp = 13
	if len(s) < stamp+1 {
		return nil, errors.New("its spec is cut short")
	}
	b, at := []byte(s[:len(s)-stamp]), s[len(s)-stamp:]
	for _, c := range at {
		if c < '0' || c > '9' {
			return nil, fmt.Errorf("its spec ends with %q, which is no time", at)
		}
	}
	if b[0] != '1' {
		return nil, fmt.Errorf("its spec is of version %q", b[0])
	}
	p := &spec{enqueued: whole(at), size: len(b), parents: map[string]bool{}}
	grace := int64(0)
	numbers := map[byte]*int64{'p': &p.priority, 'g': &grace, 'w': &p.weight, 'u': &p.reruns, 'd': &p.runAt, 'l': &p.delay, 'i': &p.at, 'm': &p.many}
	texts := map[byte]*string{'k': &p.kind, 's': &p.schedule, 'o': &p.workflow}
	for b = b[1:]; len(b) > 0; {
		tag := b[0]
		size, n := binary.Uvarint(b[1:])
		if n <= 0 || size > uint64(len(b)-1-n) {
			return nil, fmt.Errorf("field %q of its spec is cut short", tag)
		}
		v := b[1+n : 1+n+int(size)]
		b = b[1+n+int(size):]
		if text := texts[tag]; text != nil {
			*text = string(v)
		}
		if number := numbers[tag]; number != nil {
			i, n := binary.Varint(v)
			if n <= 0 || n != len(v) {
				return nil, fmt.Errorf("field %q of its spec is no number", tag)
			}
			*number = i
		}
		if tag == 'q' && len(v) > 1 {
			p.parents[string(v[1:])] = true
		}
	}
	if !isName(p.kind) || p.priority < 1 || p.priority > 9 {
		return nil, fmt.Errorf("its spec has kind %.60q, priority %d", p.kind, p.priority)
	}
	p.grace = up(grace)
	if grace < 0 {
		p.grace = -1
	}
	for p.lane.weight = 0; p.lane.weight < p.weight; {
		p.lane.weight = max(2*p.lane.weight, 1)
	}
	return p, nil
}

// up is ns in ms, rounded up.
func up(ns int64) int64 { return (ns + 999_999) / 1_000_000 }

// blocked reports whether a job with this spec waits for others when it is new.
func (s *spec) blocked() bool {
	return len(s.parents) > 0 || s.many > 0 || s.workflow != "" || s.lane.workflow()
}

// place is where a job waits that has no record.
func (s *spec) place() place {
	due := s.runAt
	if due == 0 {
		due = s.enqueued + up(s.delay)
	}
	return place{"lane:" + s.lane.String() + ":new", float64(due)}
}

// largeSpec is the size from which a record says it.
const largeSpec = 2048
