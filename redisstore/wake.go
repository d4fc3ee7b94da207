package redisstore

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// Wake implements [dianemo.Store].
func (s *Store) Wake(ctx context.Context, partition int, news dianemo.News, except string) (bool, error) {
	when, message := "now", dianemo.Message{Word: dianemo.Look, Partition: partition, Kind: news.Kind}
	if news.Later {
		when = "later"
	}
	if news.Fire {
		when, message = "later", dianemo.Message{Word: dianemo.FireNow, Partition: partition}
	}
	counts := 1
	if s.clustered() {
		counts = 0
	}
	space := s.space()
	replies, err := s.eval(ctx, command{s.scripts.wake,
		[]string{space.key("idle"), space.key("handles"), space.key("unheard"), space.key("leader"), space.key("room")},
		[]any{partition, news.Kind, when, space.channel("") + ":", encode(message), counts, except, news.Priority, news.Weight}})
	if err != nil {
		return false, err
	}
	return text(replies[0][1]) != "", verdict(replies[0])
}

func (s *Store) clustered() bool {
	_, cluster := s.rdb.(*redis.ClusterClient)
	return cluster
}

// stance makes the command that a peer stands up or down with. Its kinds are
// sent when the store does not know them.
func (s *Store) stance(peer string, stance dianemo.Stance) command {
	move := "up"
	if stance.Move == dianemo.Down {
		move = "down"
	}
	return s.stand(peer, move, stance, "")
}

func (s *Store) stand(peer, move string, stance dianemo.Stance, kinds string) command {
	space := s.space()
	load := min(max(stance.Load, 0), 0.9999)
	var room strings.Builder
	for _, tokens := range stance.Room[1:] {
		room.WriteString(strconv.Itoa(tokens) + " ")
	}
	return command{s.scripts.stand, []string{space.key("idle"), space.key("handles"), space.key("unheard"), space.key("room")},
		[]any{peer, move, strconv.FormatFloat(load, 'f', 4, 64), kinds, stance.Level, room.String()}}
}

// unheard reads the answer, and asks again where the store wants to know the
// kinds.
func (s *Store) unheard(ctx context.Context, peer string, stance dianemo.Stance, reply []any) ([]int, error) {
	if text(reply[0]) == "kinds" {
		kinds := " "
		for name, weight := range stance.Kinds {
			kinds += name + "=" + strconv.Itoa(weight) + " "
		}
		replies, err := s.eval(ctx, s.stand(peer, "up", stance, kinds))
		if err != nil {
			return nil, err
		}
		if reply = replies[0]; text(reply[0]) != "ok" {
			return nil, verdict(reply)
		}
	}
	var partitions []int
	for _, word := range strings.Fields(text(reply[1])) {
		if p, err := strconv.Atoi(word); err == nil && 0 <= p && p < s.Partitions() {
			partitions = append(partitions, p)
		}
	}
	return partitions, nil
}

// encode is a message as it is sent.
func encode(m dianemo.Message) string {
	var text strings.Builder
	text.WriteString(string(m.Word) + " " + strconv.Itoa(m.Partition) + " " + m.Kind)
	for _, job := range m.Near {
		text.WriteString(" " + job.ID + " " + laneName(job.Lane) + " " + strconv.FormatInt(job.Until.UnixMilli(), 10))
	}
	return text.String()
}

// decode leaves out what it can't read.
func (s *Store) decode(text string) (m dianemo.Message, ok bool) {
	words := strings.Split(text, " ")
	if len(words) < 3 || len(words)%3 != 0 {
		return m, false
	}
	p, err := strconv.Atoi(words[1])
	if err != nil || p < dianemo.Everywhere || p >= s.Partitions() {
		return m, false
	}
	m = dianemo.Message{Word: dianemo.Word(words[0]), Partition: p, Kind: words[2]}
	for job := range slices.Chunk(words[3:], 3) {
		lane, ok := parseLane(job[1])
		until, err := strconv.ParseInt(job[2], 10, 64)
		if ok && err == nil && dianemo.CheckName("id", job[0]) == nil {
			m.Near = append(m.Near, dianemo.NearJob{ID: job[0], Lane: lane, Until: time.UnixMilli(until)})
		}
	}
	return m, true
}

// Tell implements [dianemo.Store].
func (s *Store) Tell(ctx context.Context, peer string, m dianemo.Message) error {
	if err := s.rdb.Publish(ctx, s.space().channel(peer), encode(m)).Err(); err != nil {
		return translate(err)
	}
	return nil
}

// Listen implements [dianemo.Store].
func (s *Store) Listen(ctx context.Context, peer string, heard func(dianemo.Message)) error {
	sub := s.rdb.Subscribe(ctx, s.space().channel(""), s.space().channel(peer))
	defer sub.Close()
	// A receive that waits for a message does not hear of the context's end.
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
	defer stop()
	for pinged := false; ; {
		message, err := sub.ReceiveTimeout(ctx, listenTimeout)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() && !pinged {
			// Quiet or cut off? The answer to a ping tells.
			pinged, err = true, sub.Ping(ctx)
		}
		if err != nil {
			return translate(err)
		}
		switch m := message.(type) {
		case *redis.Pong:
			pinged = false
		case *redis.Subscription:
			heard(dianemo.Message{}) // what was published before is lost
		case *redis.Message:
			pinged = false
			if m, ok := s.decode(m.Payload); ok {
				heard(m)
			}
		}
	}
}

// listenTimeout is how long a subscription may be quiet before it is tested.
const listenTimeout = 10 * time.Second
