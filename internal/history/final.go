package history

import "github.com/dianemo/dianemo"

// Final is what is there when the faults have ended and the load has drained.
type Final struct {
	Jobs []Job `json:"jobs"`
	// Audit is where records and indexes disagree: see package audit.
	Audit []string `json:"audit,omitempty"`
	// Foreign are keys of others that were changed, and keys outside the namespace that nobody of the
	// test has made.
	Foreign []string `json:"foreign,omitempty"`
	// Charged are tokens that peers still show as in use, by peer.
	Charged map[string]int `json:"charged,omitempty"`
	// Calm is when the last fault was over.
	Calm Moment `json:"calm"`
	// Led is when a living peer was first seen, from Calm on, to hold the lease; 0: never.
	Led Moment `json:"led"`
	// Drained is when no job was left that could have gone on; 0: never.
	Drained Moment `json:"drained"`
	// Probes are the marks of the jobs, due at once and urgent, that were enqueued after Drained.
	Probes []string `json:"probes,omitempty"`
}

// A Job of the final state.
type Job struct {
	ID       string        `json:"id"`
	Mark     string        `json:"mark,omitempty"`
	Kind     string        `json:"kind"`
	State    dianemo.State `json:"state"`
	Reason   string        `json:"reason,omitempty"`
	Attempt  int           `json:"attempt,omitempty"`
	Runs     int           `json:"runs,omitempty"`
	Epoch    int64         `json:"epoch,omitempty"`
	Peer     string        `json:"peer,omitempty"`
	Schedule string        `json:"schedule,omitempty"`
	Instant  int64         `json:"instant,omitempty"` // Unix ms
	// Of its result, which each handler sets to who made it.
	ResultEpoch int64  `json:"resultEpoch,omitempty"`
	ResultPeer  string `json:"resultPeer,omitempty"`
	// History are its runs as stored, oldest first.
	History []Run `json:"history,omitempty"`
	// Workflow: it stands for a workflow and is never started.
	Workflow bool `json:"workflow,omitempty"`
}

// A Run of a job as stored.
type Run struct {
	Epoch   int64           `json:"epoch"`
	Peer    string          `json:"peer"`
	Outcome dianemo.Outcome `json:"outcome,omitempty"`
}
