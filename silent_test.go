package dianemo

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An openStore can be opened, and no more.
type openStore struct{ Store }

func (openStore) Open(context.Context) error { return nil }
func (openStore) Partitions() int            { return 1 }

// A mourningStore knows peers that are silent, and names ten of them at a time.
type mourningStore struct {
	openStore
	silent []string
	kept   func(peer string) bool // it can't be reaped
	rounds int
}

func (s *mourningStore) Survey(context.Context, *Chore) ([]Survey, error) {
	s.rounds++
	page := slices.Clone(s.silent[:min(len(s.silent), 10)])
	return []Survey{{Now: time.Now(), Silent: page, MoreSilent: len(page) == 10}}, nil
}

func (s *mourningStore) Reap(_ context.Context, _ int, _ Call, peer string, _ Chore) (ReapReply, error) {
	s.silent = slices.DeleteFunc(s.silent, func(name string) bool { return name == peer && !s.kept(peer) })
	return ReapReply{}, nil
}

func (s *mourningStore) Repair(context.Context, int, Call, RepairStep) (RepairReply, error) {
	return RepairReply{}, nil
}

func TestALeaderReapsManySilentPeersInRoundsThatFollowAtOnce(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		peers, kept  int // the first of them can't be reaped
		rounds, left int
	}{
		"none":                 {0, 0, 1, 0},
		"less than a page":     {9, 0, 1, 0},
		"a page":               {10, 0, 2, 0},
		"many":                 {95, 0, 10, 0},
		"some can't be reaped": {24, 8, 9, 8},
		"a page of these":      {30, 10, 2, 30},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := &mourningStore{kept: func(peer string) bool { return peer < fmt.Sprintf("%03d", row.kept) }}
			for i := range row.peers {
				store.silent = append(store.silent, fmt.Sprintf("%03d", i))
			}
			p, err := NewPeer(store, Config{})
			require.NoError(t, err)
			defer p.Close()
			require.NoError(t, p.open(t.Context()))
			p.partitions = []*partition{newPartition(p, 0)}
			p.term.Store(&term{1, time.Now().Add(time.Hour)})
			r := newRota(1)
			// As rounds does, but for the ticks.
			for signal(p.soon); len(p.soon) > 0; {
				<-p.soon
				p.round(t.Context(), r)
				require.LessOrEqual(t, store.rounds, row.peers+1, "it does not end")
			}
			require.Equal(t, row.rounds, store.rounds)
			require.Len(t, store.silent, row.left)
		})
	}
}
