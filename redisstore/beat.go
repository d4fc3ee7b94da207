package redisstore

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/dianemo/dianemo"
)

// Beat implements [dianemo.Store].
func (s *Store) Beat(ctx context.Context, partition int, beat dianemo.Beat) (dianemo.BeatReply, error) {
	t := s.tag(partition)
	keys := []string{t.key("beats"), t.key("info"), t.run(beat.Peer), t.key("progress"), t.key("meta")}
	var answer dianemo.BeatReply
	for rest, first := beat.Runs, true; first || len(rest) > 0; first = false {
		batch := rest[:min(len(rest), dianemo.MaxCallJobs)]
		rest = rest[len(batch):]
		args := make([]any, 0, 3+3*len(batch))
		args = append(args, beat.Peer, beat.Every.Milliseconds(), beat.SilentAfter.Milliseconds())
		for _, r := range batch {
			progress := ""
			if r.Progress != nil {
				b, err := json.Marshal(r.Progress)
				if err != nil {
					return answer, fmt.Errorf("redisstore: progress of job %s: %w", r.ID, err)
				}
				progress = string(b)
			}
			args = append(args, r.ID, r.Epoch, progress)
		}
		replies, err := s.eval(ctx, command{s.scripts.beat, keys, args})
		if err != nil {
			return answer, err
		}
		if err := verdict(replies[0]); err != nil {
			return answer, err
		}
		answer.Held = int(number(replies[0][1]))
		answer.Lost = append(answer.Lost, runRefs(list(replies[0][2]))...)
		answer.Cancelled = append(answer.Cancelled, runRefs(list(replies[0][3]))...)
	}
	return answer, nil
}

// Lead implements [dianemo.Store].
func (s *Store) Lead(ctx context.Context, bid dianemo.Bid) (dianemo.Lease, error) {
	wish := "bid"
	if bid.Resign {
		wish = "resign"
	}
	space := s.space()
	replies, err := s.eval(ctx, command{s.scripts.lead, []string{space.key("leader"), space.key("term")},
		[]any{bid.Peer, bid.Lease.Milliseconds(), wish}})
	if err != nil {
		return dianemo.Lease{}, err
	}
	return dianemo.Lease{Leader: text(replies[0][0]), Term: number(replies[0][1])}, nil
}
