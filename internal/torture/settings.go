//go:build linux

package main

import "time"

// Intervals of all peers: as short as a busy machine allows, so that a minute has many deaths.
const (
	beatEvery   = 200 * time.Millisecond
	silentAfter = 2 * time.Second
	lease       = time.Second
	finish      = 50 * time.Millisecond // how long a peer that is terminated waits for its jobs
	stuckAfter  = 3 * time.Second
)

const (
	namespace   = "torture"
	peersAtOnce = 4
	tokens      = 8
)

// reserve is for priority 1, and for 1 and 2.
var reserve = map[int]int{1: 1, 2: 2}

// redisTimeout is short, so that a dead connection is noticed while a fault lasts.
const redisTimeout = 700 * time.Millisecond

// Settings of one peer process.
type settings struct {
	Redis      string
	Partitions int
	Dir        string // for its journal
}
