package redisstore

import (
	"hash/fnv"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// The names of all keys are made in this file. A partition's keys share a hash
// tag, so that they are in one slot of a cluster; what belongs to the whole
// namespace has a tag of its own.
//
//	{ns:p}:spec              hash    id → encoded job, then 13 digits: when it was enqueued (ms)
//	{ns:p}:meta              hash    id → the mutable fields, see common.lua; none: never claimed, no override
//	{ns:p}:result            hash    id → result
//	{ns:p}:errors            hash    place|id → ended (ms)|epoch|peer|outcome|reason|text, a ring of 10 places for each id: its runs but those that succeeded
//	{ns:p}:progress          hash    id → the last progress of the present run
//	{ns:p}:lane:<lane>       zset    id → due (ms)
//	{ns:p}:lanes             zset    lane → its earliest due
//	{ns:p}:run:<peer>        zset    id → epoch
//	{ns:p}:beats             zset    peer → until when it may be silent (ms)
//	{ns:p}:done:<state>:<kind> zset  id → when it ended (ms)
//	{ns:p}:counts            hash    state:kind:priority → jobs that run or have ended
//	{ns:p}:unique            hash    kind:key → the job that took the slot, see common.lua
//	{ns:p}:schedules         hash    name → definition, see dianemo's schedule.go
//	{ns:p}:cursors           hash    name → what changes of a schedule, see cursor.lua
//	{ns:p}:fires             zset    name → when the schedule is to be looked at (ms)
//	{ns:p}:kids              hash    id of a job that has children → number|the last of them that was told, see common.lua; workflow# the same for its jobs
//	{ns:p}:edges             zset    parent|child → 0, in the parent's partition; job||workflow; workflow#job
//	{ns:p}:outbox            zset    parent, or workflow#, whose children are to be told of it → since when (µs)
//	{ns:p}:needs             hash    child|parent → how it waits for it, child| for its gate, child|| → in numbers, see release.lua
//	{ns:p}:gates             zset    job or workflow that is not all there yet → until when it is to be (ms); before now: a schedule's workflow
//	{ns:p}:blocked           zset    id → until when it must start (ms), the end of the year 9999 if nothing says that
//	{ns:p}:info              hash    alive, up_since (ms), every (ms), term; paused: kinds; removed: the highest version of a schedule that was; hold:<lane> → peer|until (ms)
//	{ns:p}:call:<edge>:<caller> string, expires: the caller's last call and its answer
//	{ns}:layout              hash    layout, min_peer, partitions
//	{ns}:kinds               hash    kind → what is kept of its finished jobs
//	{ns}:peers               hash    peer → how it shows itself
//	{ns}:seen                zset    peer → when it last did (ms)
//	{ns}:drained             set     peers that are to claim nothing
//	{ns}:leader, {ns}:term   string  the lease, expires; the last term
//	{ns}:idle                zset    peer that has tokens to spare → its load
//	{ns}:handles             hash    peer → its kinds with their weights, kind=weight between spaces
//	{ns}:room                hash    peer that is idle → what a job of each priority may weigh there
//	{ns}:unheard             hash    kind → partitions with work of which nobody could be told, between spaces
//	<key>:aside:<ms>         any     a key that had another type than it should, expires
//	{ns}:tell, {ns}:tell:<peer> channels messages to all, to one peer
const layoutVersion = 1

// A tag is the common beginning of a partition's keys, or the namespace's.
type tag string

func partitionTag(namespace string, partition int) tag {
	return tag("{" + namespace + ":" + strconv.Itoa(partition) + "}:")
}

func namespaceTag(namespace string) tag { return tag("{" + namespace + "}:") }

func (t tag) key(name string) string { return string(t) + name }

func (t tag) lane(name string) string { return string(t) + "lane:" + name }

func (t tag) run(peer string) string { return string(t) + "run:" + peer }

func (t tag) done(state dianemo.State, kind string) string {
	return string(t) + "done:" + string(state) + ":" + kind
}

func (t tag) call(edge dianemo.Edge, caller string) string {
	return string(t) + "call:" + string(edge) + ":" + caller
}

// heirs are the keys by which a job that ends leaves word for its children.
func (t tag) heirs() []string { return []string{t.key("kids"), t.key("outbox")} }

// slotName is a field of unique.
func slotName(kind, key string) string { return kind + ":" + key }

// channel is where a peer hears messages; "" is for all.
func (t tag) channel(peer string) string {
	if peer == "" {
		return string(t) + "tell"
	}
	return string(t) + "tell:" + peer
}

// routingPart is the part of an id that decides its partition: what stands
// before the first @. So jobs that must stand together can.
func routingPart(id string) string {
	part, _, _ := strings.Cut(id, "@")
	return part
}

func partitionOf(id string, partitions int) int {
	if partitions == 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(routingPart(id))) // a hash's Write never fails
	return int(h.Sum32() % uint32(partitions))
}

// A lane's name: its base, kind:priority:grace:weight, with grace in ms or -1,
// and whether its jobs have been run. A name that this version can't read
// belongs to a newer one, and is left alone.
const (
	laneNew   = ":new"
	laneAgain = ":again"
)

func laneBase(l dianemo.Lane) string {
	return l.Kind + ":" + strconv.Itoa(l.Priority) + ":" + strconv.FormatInt(graceMillis(l.Grace), 10) + ":" + strconv.Itoa(l.Weight)
}

func laneName(l dianemo.Lane) string {
	if l.Again {
		return laneBase(l) + laneAgain
	}
	return laneBase(l) + laneNew
}

// laneClass is what jobs are counted by.
func laneClass(l dianemo.Lane) string { return l.Kind + ":" + strconv.Itoa(l.Priority) }

// laneExpired is the state in which the lane's jobs end when their grace is over.
func laneExpired(l dianemo.Lane) dianemo.State {
	if l.Again {
		return dianemo.Failed
	}
	return dianemo.Missed
}

func parseLane(name string) (dianemo.Lane, bool) {
	base, again, ok := name, false, false
	if base, ok = strings.CutSuffix(name, laneNew); !ok {
		base, ok = strings.CutSuffix(name, laneAgain)
		again = true
	}
	l, good := parseBase(base)
	l.Again = again
	return l, ok && good
}

func parseBase(base string) (dianemo.Lane, bool) {
	parts := strings.Split(base, ":")
	if len(parts) != 4 || dianemo.CheckName("kind", parts[0]) != nil {
		return dianemo.Lane{}, false
	}
	priority, err1 := strconv.Atoi(parts[1])
	grace, err2 := strconv.ParseInt(parts[2], 10, 64)
	weight, err3 := strconv.Atoi(parts[3])
	if err1 != nil || err2 != nil || err3 != nil || priority < 1 || priority > 9 || grace < -1 || weight < 0 || weight > dianemo.MaxWeight {
		return dianemo.Lane{}, false
	}
	l := dianemo.Lane{Kind: parts[0], Priority: priority, Grace: dianemo.Unlimited, Weight: weight}
	if grace >= 0 && grace <= math.MaxInt64/int64(time.Millisecond) {
		l.Grace = time.Duration(grace) * time.Millisecond
	}
	return l, laneBase(l) == base
}

// graceMillis rounds up, so that a grace is never shorter than asked for.
func graceMillis(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	ms := int64(d / time.Millisecond)
	if d%time.Millisecond > 0 { // no sum with d: it may be the largest one
		ms++
	}
	return ms
}
