// Package redisstore keeps Dianemo's jobs in Redis 7 or newer, standalone,
// behind Sentinel or in a Cluster. Each edge of a job's life is one Lua script;
// keys.go has the layout.
//
// The client's own log, which go-redis writes to standard error, is turned off
// or elsewhere by redis.SetLogger.
//
// Redis must not evict: set maxmemory-policy noeviction. What a crash of Redis
// itself can lose is decided by its persistence and replication.
package redisstore

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// Options of a store. The zero value works.
type Options struct {
	// Namespace is a prefix that separates applications sharing a Redis: 1 to
	// 128 letters, digits and . _ - / @ +; default "dianemo".
	Namespace string
	// Partitions divides the namespace, 1 to 4096. It is recorded in Redis by
	// whoever is first; a program that says otherwise afterwards gets a
	// dianemo.LayoutError. Default: what is recorded, else 64 on a Cluster and 1
	// elsewhere.
	Partitions int
	// Plain leaves the line with flags out of the scripts, for servers that
	// don't know it (miniredis). Against a real Redis at its maxmemory, plain
	// scripts that let work finish are refused like all others.
	Plain bool
}

// maxPartitions bounds what chores and readers must visit.
const maxPartitions = 4096

// Bounds of one script call.
const (
	// largeSpec is the size from which a job's record says it, so that a claim
	// can bound its bytes before it reads them.
	largeSpec = 2 << 10
	lanesPage = 128
)

// Store is a [dianemo.Store] in Redis. It is safe for concurrent use, and
// starts no goroutine of its own. Closing the client is up to its owner.
type Store struct {
	rdb        redis.UniversalClient
	options    Options
	scripts    scripts
	partitions atomic.Int32 // 0 until opened
}

var _ dianemo.Store = (*Store)(nil)

// New makes a store on a client. Nothing is sent, and nothing is checked,
// before Open, which peers and clients call by themselves.
func New(rdb redis.UniversalClient, options Options) *Store {
	if options.Namespace == "" {
		options.Namespace = "dianemo"
	}
	return &Store{rdb: rdb, options: options, scripts: scriptsOf[options.Plain]()}
}

// Open implements [dianemo.Store].
func (s *Store) Open(ctx context.Context) error {
	if v := reflect.ValueOf(s.rdb); s.rdb == nil || v.Kind() == reflect.Pointer && v.IsNil() {
		return &dianemo.FieldError{Field: "redisstore.New(rdb)", Value: nil, Allowed: "a client"}
	}
	if err := dianemo.CheckName("Options.Namespace", s.options.Namespace); err != nil {
		return err
	}
	if p := s.options.Partitions; p < 0 || p > maxPartitions {
		return &dianemo.FieldError{Field: "Options.Partitions", Value: p, Allowed: fmt.Sprintf("1 to %d, or 0 for the default", maxPartitions)}
	}
	_, err := s.present(ctx, "", "")
	return err
}

// Partitions implements [dianemo.Store].
func (s *Store) Partitions() int { return int(s.partitions.Load()) }

// Partition implements [dianemo.Store].
func (s *Store) Partition(id string) int { return partitionOf(id, s.Partitions()) }

func (s *Store) tag(partition int) tag { return partitionTag(s.options.Namespace, partition) }

func (s *Store) space() tag { return namespaceTag(s.options.Namespace) }

// present runs the script of that name and checks the layout it answers.
func (s *Store) present(ctx context.Context, peer, record string) (drained bool, err error) {
	// If Redis has lost the record, what was learned from it counts.
	partitions := s.options.Partitions
	if partitions == 0 {
		partitions = s.Partitions()
	}
	if partitions == 0 {
		partitions = 1
		if _, cluster := s.rdb.(*redis.ClusterClient); cluster {
			partitions = 64
		}
	}
	space := s.space()
	replies, err := s.eval(ctx, command{s.scripts.present,
		[]string{space.key("layout"), space.key("peers"), space.key("seen"), space.key("drained"), space.key("idle"), space.key("handles"), space.key("room")},
		[]any{layoutVersion, partitions, peer, record}})
	if err != nil {
		return false, err
	}
	stored := [3]int{}
	for i := range stored {
		text, _ := replies[0][i].(string)
		if stored[i], err = strconv.Atoi(text); err != nil {
			return false, fmt.Errorf("redisstore: the record of the layout is corrupt: %w", err)
		}
	}
	mismatch := func(field string, stored, own int) (bool, error) {
		return false, &dianemo.LayoutError{Namespace: s.options.Namespace, Field: field, Stored: stored, Own: own}
	}
	switch {
	case stored[0] > layoutVersion:
		return mismatch("layout", stored[0], layoutVersion)
	case stored[1] > layoutVersion:
		return mismatch("min_peer", stored[1], layoutVersion)
	case stored[2] < 1 || stored[2] > maxPartitions || s.options.Partitions != 0 && s.options.Partitions != stored[2]:
		return mismatch("partitions", stored[2], s.options.Partitions)
	case s.partitions.Load() != 0 && int(s.partitions.Load()) != stored[2]:
		return mismatch("partitions", stored[2], int(s.partitions.Load()))
	}
	s.partitions.Store(int32(stored[2]))
	return text(replies[0][3]) == "1", nil
}
