package redisstore

import (
	"context"
	"slices"
	"strings"

	"github.com/dianemo/dianemo"
)

// restore gives jobs that live their unique slots again. Only those are sent to
// the script whose slot names another job, or nobody; it judges.
func (w *walk) restore(ctx context.Context, ids, records []string) error {
	var named, slots []string
	for i, record := range records {
		m, err := parseMeta(record)
		if err != nil || dianemo.State(m.state).Finished() {
			continue
		}
		if f := strings.SplitN(m.unique, ",", 3); len(f) == 3 {
			named, slots = append(named, ids[i]), append(slots, f[2])
		}
	}
	if len(named) == 0 {
		return nil
	}
	values, err := w.rdb.HMGet(ctx, w.t.key("unique"), slots...).Result()
	if err != nil {
		return w.broken(ctx, err, w.t.key("unique"))
	}
	var args []any
	for i, id := range named {
		if holder, _, _ := strings.Cut(text(values[i]), "|"); holder != id {
			args = append(args, "job", id, "")
		}
	}
	return w.slots(ctx, args)
}

// unique walks through the slots.
func (w *walk) unique(ctx context.Context, rest string) (string, error) {
	entries, next, err := w.scan(ctx, "unique", rest)
	if err != nil {
		return "", err
	}
	var args []any
	for i := 0; i+1 < len(entries); i += 2 {
		args = append(args, "slot", entries[i], entries[i+1])
	}
	w.reply.Looked += len(args) / 3
	return next, w.slots(ctx, args)
}

func (w *walk) slots(ctx context.Context, args []any) error {
	for batch := range slices.Chunk(args, 3*dianemo.MaxCallJobs) {
		reply, err := w.run(ctx, w.scripts.slots, []string{w.t.key("spec"), w.t.key("meta"), w.t.key("unique")}, batch...)
		if err != nil {
			return err
		}
		for i := 1; i+1 < len(reply); i += 2 {
			r := dianemo.Repaired{ID: text(reply[i]), Key: w.t.key("unique"), What: "its unique slot was free", Did: "it holds it again"}
			if text(reply[i+1]) == "orphan" {
				r.What, r.Did = "the job that a slot names is gone", "the slot is removed"
			}
			w.found(r)
		}
	}
	return nil
}
