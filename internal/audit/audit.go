package audit

import (
	"context"
	"fmt"
	"hash/fnv"
	"regexp"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Keys says what is wrong with the keys of a namespace, a line for each finding; none if all is
// well. It reads all of them at one moment, in one script, so peers may be at work meanwhile; with
// a million jobs Redis does nothing else for seconds.
//
// What a legal history may leave behind is no finding: see [Leftovers].
func Keys(ctx context.Context, rdb *redis.Client, namespace string, partitions int) (findings []string, err error) {
	a, err := look(ctx, rdb, namespace, partitions)
	return a.findings, err
}

// Leftovers says what of a namespace is no use any more, and harms nobody: what processes that
// died, and calls that were refused half-way, have left of families. Repair removes most of it.
// Where no process has died and repair has been here, there is none.
func Leftovers(ctx context.Context, rdb *redis.Client, namespace string, partitions int) (leftovers []string, err error) {
	a, err := look(ctx, rdb, namespace, partitions)
	return a.leftovers, err
}

// An audit under way.
type audit struct {
	namespace string
	now       int64 // ms, of the moment at which all was read
	parts     []*part
	space     map[string]*content
	jobs      map[string]*job // of all partitions
	needs     map[string]*needs
	findings  []string
	leftovers []string
}

// A part is a partition's keys, by their names behind its tag.
type part struct {
	*audit
	number int
	keys   map[string]*content
	jobs   map[string]*job
	edges  map[edge]bool
}

func look(ctx context.Context, rdb *redis.Client, namespace string, partitions int) (*audit, error) {
	a := &audit{namespace: namespace, space: map[string]*content{}, jobs: map[string]*job{}, needs: map[string]*needs{}}
	for number := range partitions {
		a.parts = append(a.parts, &part{audit: a, number: number, keys: map[string]*content{}, jobs: map[string]*job{}, edges: map[edge]bool{}})
	}
	all, err := a.read(ctx, rdb)
	if err != nil {
		return a, fmt.Errorf("audit of namespace %s: %w", namespace, err)
	}
	a.sort(all)
	for _, p := range a.parts {
		p.gather()
	}
	for _, p := range a.parts {
		p.checkJobs()
		p.checkLanes()
		p.checkRuns()
		p.checkCounts()
		p.checkBeside()
		p.checkInfo()
		p.checkSchedules()
	}
	a.checkSlots()
	a.checkFamilies()
	a.checkPeers()
	slices.Sort(a.findings)
	slices.Sort(a.leftovers)
	return a, nil
}

func (a *audit) found(format string, args ...any) {
	a.findings = append(a.findings, fmt.Sprintf(format, args...))
}

func (a *audit) left(format string, args ...any) {
	a.leftovers = append(a.leftovers, fmt.Sprintf(format, args...))
}

// found tells in which key.
func (p *part) found(key, format string, args ...any) {
	p.audit.found("{%s:%d}:%s: %s", p.namespace, p.number, key, fmt.Sprintf(format, args...))
}

func (p *part) left(key, format string, args ...any) {
	p.audit.left("{%s:%d}:%s: %s", p.namespace, p.number, key, fmt.Sprintf(format, args...))
}

// partOf is the partition in which an id belongs: that of what stands before its first @.
func (a *audit) partOf(id string) *part {
	before, _, _ := strings.Cut(id, "@")
	h := fnv.New32a()
	_, _ = h.Write([]byte(before)) // a hash's Write never fails
	return a.parts[int(h.Sum32()%uint32(len(a.parts)))]
}

var nameForm = regexp.MustCompile(`^[0-9A-Za-z._/@+-]{1,128}$`)

func isName(s string) bool { return nameForm.MatchString(s) }
