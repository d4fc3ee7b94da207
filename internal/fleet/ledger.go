package main

import "slices"

// A ledger is the library's, for jobs of one token and one priority.
type ledger struct {
	tokens, running, aside int
	line                   []int // partitions that wait for tokens
}

func (l *ledger) room() int { return l.tokens - l.running - l.aside }

// spare counts as free what claims under way have set aside.
func (l *ledger) spare() int { return l.tokens - l.running }

// ask grants a claim its budget; 0: it stands in line now. next is who is to be called instead, or -1.
func (l *ledger) ask(partition int) (grant, next int) {
	room := l.room()
	if room < 1 || len(l.line) > 0 && l.line[0] != partition {
		if !slices.Contains(l.line, partition) {
			l.line = append(l.line, partition)
		}
		return 0, l.next()
	}
	l.drop(partition)
	most := (l.tokens + 1) / 2
	if len(l.line) > 0 {
		most = (room + 1) / 2
	}
	grant = min(room, max(most, 1))
	l.aside += grant
	return grant, -1
}

func (l *ledger) next() int {
	if len(l.line) == 0 || l.room() < 1 {
		return -1
	}
	return l.line[0]
}

func (l *ledger) drop(partition int) {
	if i := slices.Index(l.line, partition); i >= 0 {
		l.line = slices.Delete(l.line, i, i+1)
	}
}

func (l *ledger) close(grant, claimed int) {
	l.aside -= grant
	l.running += claimed
}
