package main

// mild is for what the load alone brings out: it makes no difference.
var mild = []string{"script-flush"}

// bugs are what is planted: of each promise that the checker knows, one breach at least, and of
// each guard of the engine that a fault is needed to miss.
var bugs = []bug{
	{
		name:   "stale-result",
		what:   "a settlement is taken from whoever brings it: its epoch and peer are not checked",
		faults: []string{"pause-peer", "pause-leader"},
		by:     []string{"epochs", "one-end", "starts", "records"},
		edits: []edit{{"redisstore/settle.lua", `  if own then outcome = 'fail' end
  if not m or m.epoch ~= epoch or m.peer ~= peer then`, `  if own then outcome = 'fail' end
  if not m then`}},
	},
	{
		name:   "epoch-reused",
		what:   "a job that is claimed again goes on under the epoch that it had",
		faults: mild,
		by:     []string{"epochs"},
		edits: []edit{{"redisstore/claim.lua", `e = int(math.max(m.epoch + 1, now_us))`,
			`e = int(m.epoch + 0 > 0 and m.epoch or now_us)`}},
	},
	{
		name:   "reap-keeps-epoch",
		what:   "a job taken from a silent peer keeps its epoch, so that what that peer still says seems to count",
		faults: []string{"pause-peer", "pause-leader"},
		by:     []string{"one-end", "epochs"},
		edits: []edit{{"redisstore/reap.lua", `m.epoch, m.reason = int(math.min(m.epoch + 1, 8.9e15)), why or 'silent'`,
			`m.reason = why or 'silent'`}},
	},
	{
		// Either check alone makes up for the other, but for occurrences that are let go of while a firing is
		// under way.
		name:   "fire-any-cursor",
		what:   "a firing counts whatever the cursor, and makes anew what is there already",
		faults: []string{"kill-leader"},
		by:     []string{"occurrences"},
		edits: []edit{
			{"redisstore/fire.lua", `c.version ~= f.version or f.to ~= '' and c.at ~= f.from then`, `c.version ~= f.version then`},
			{"redisstore/fire.lua", `      if exists[id] then
        word = 'exists'
      elseif verdict`, `      if verdict`},
		},
	},
	{
		name:   "downtime-skipped",
		what:   "when nobody led for more than two seconds, only the last second's instants are made afterwards",
		faults: []string{"cut-all"},
		by:     []string{"occurrences"},
		edits: []edit{{"occurrences.go", `	due, next, err := d.due(s.Name, from, now, by)
`, `	if now.Sub(from) > 2*time.Second {
		from = now.Add(-time.Second)
	}
	due, next, err := d.due(s.Name, from, now, by)
`}},
	},
	{
		name:   "attempts-forgotten",
		what:   "a failed attempt that is tried again is not counted",
		faults: mild,
		by:     []string{"starts"},
		edits: []edit{{"redisstore/settle.lua", `if outcome == 'fail' or outcome == 'retry' or outcome == 'cancel' then m.fails`,
			`if outcome == 'fail' or outcome == 'cancel' then m.fails`}},
	},
	{
		name:   "retry-too-soon",
		what:   "how long a retry is put off goes to the script in seconds, which it takes for milliseconds",
		faults: mild,
		by:     []string{"starts"},
		edits: []edit{{"redisstore/turn.go", `outcome, targets[i], millisUp(r.In), r.Reason`,
			`outcome, targets[i], int64(r.In.Seconds()), r.Reason`}},
	},
	{
		name:   "reruns-uncounted",
		what:   "a job taken from a silent peer may run again any number of times",
		faults: []string{"poison"},
		by:     []string{"starts"},
		edits: []edit{{"redisstore/reap.lua", `m.state, m.reruns, m.due = 'scheduled', int(m.reruns + 1), int(now)`,
			`m.state, m.due = 'scheduled', int(now)`}},
	},
	{
		name:   "tokens-twice",
		what:   "a result that is refused gives the tokens back that its handler's return gave back before",
		faults: []string{"pause-peer", "pause-leader"},
		by:     []string{"tokens", "calm"},
		edits: []edit{{"settle.go", `		if refused {
`, `		if refused {
			part.peer.ledger.release(f.run.priority, f.run.weight)
`}},
	},
	{
		name:   "tokens-kept",
		what:   "a run that was lost never gives its tokens back",
		faults: []string{"pause-peer", "pause-leader"},
		by:     []string{"calm"},
		edits: []edit{{"settle.go", `	delete(part.held, r.ref())
	part.finished = append(part.finished, finished{r, s, time.Since(r.started)})
	part.mu.Unlock()
	part.peer.ledger.release(r.priority, r.weight)
`, `	delete(part.held, r.ref())
	part.finished = append(part.finished, finished{r, s, time.Since(r.started)})
	lost := r.lost
	part.mu.Unlock()
	if !lost {
		part.peer.ledger.release(r.priority, r.weight)
	}
`}},
	},
	{
		name:   "reserve-ignored",
		what:   "a claim does not look at the room of the job's own level, where the reserve is",
		faults: []string{"cut-all"},
		by:     []string{"tokens"},
		edits: []edit{{"redisstore/claim.lua", `for level = 2, priority do cap = math.min(cap, room[level]) end`,
			`for level = 2, priority - 1 do cap = math.min(cap, room[level]) end`}},
	},
	{
		name:   "room-overdrawn",
		what:   "jobs without a record do not use up the room of a claim",
		faults: []string{"cut-all"},
		by:     []string{"tokens"},
		edits: []edit{{"redisstore/claim.lua", `          meta = usual
          spent = spent + weight
`, `          meta = usual
`}},
	},
	{
		name:   "outage-is-silence",
		what:   "the time in which nobody could beat counts as each peer's silence",
		faults: []string{"redis-kill", "pause-peer"},
		by:     []string{"silence"},
		edits: []edit{{"redisstore/common.lua", `if not alive or not since or since > now or now - alive > 1.5 * widest then since = now end`,
			`if not alive or not since or since > now then since = now end`}},
	},
	{
		name:   "silent-too-soon",
		what:   "a beat keeps a peer alive for the beats' interval, not for as long as it may be silent",
		faults: []string{"delay"},
		by:     []string{"silence"},
		edits: []edit{{"redisstore/beat.lua", `redis.call('ZADD', KEYS[1], int(now + ARGV[3]), ARGV[1])`,
			`redis.call('ZADD', KEYS[1], int(now + ARGV[2]), ARGV[1])`}},
	},
	{
		name:   "missed-after-a-run",
		what:   "a job that has been run and then waits past its grace ends missed",
		faults: []string{"kill-peer", "cut-all"},
		by:     []string{"silence", "one-end"},
		edits: []edit{{"redisstore/keys.go", `	if l.Again {
		return dianemo.Failed
	}
	return dianemo.Missed`, `	return dianemo.Missed`}},
	},
	{
		name:   "late-start",
		what:   "a claim does not look at the grace of what it takes",
		faults: []string{"cut-all"},
		by:     []string{"starts", "silence"},
		edits: []edit{{"redisstore/claim.lua", `local expires = times and times[1] + 0 < earliest`,
			`local expires = times and times[1] + 0 < earliest - 3600000`}},
	},
	{
		name:   "any-parent",
		what:   "a child is released when the first of its parents has ended as it should",
		faults: mild,
		by:     []string{"families"},
		edits: []edit{{"redisstore/release.lua", `if total.pending > total.violated then return 'blocked', '' end`,
			`if total.pending > total.violated and not total.fit then return 'blocked', '' end`}},
	},
	{
		name:   "told-twice",
		what:   "what a child was told counts each time that it is told",
		faults: []string{"kill-peer", "drop-replies"},
		by:     []string{"families", "records"},
		edits: []edit{{"redisstore/release.lua", `        else
          values[field] = false
          if letter == 'g' then`, `        else
          values[field] = letter ~= 'g' and how
          if letter == 'g' then`}},
	},
	{
		name:   "untold-of-silence",
		what:   "the children of a job that ends unreachable are not told",
		faults: []string{"kill-peer", "kill-leader"},
		by:     []string{"records", "calm"},
		edits: []edit{{"redisstore/reap.lua", `if moved[j + 1] ~= 'scheduled' then ended[#ended + 1] = moved[j] end`,
			`if moved[j + 1] == 'cancelled' then ended[#ended + 1] = moved[j] end`}},
	},
	{
		name:   "enqueue-forgets",
		what:   "an enqueue does not remember its answer, so that one that is sent again is refused as its own double",
		faults: []string{"drop-enqueues"},
		by:     []string{"acknowledged"},
		edits: []edit{{"redisstore/enqueue.lua", `keep(KEYS[1], ARGV[1], news .. '|' .. existing)
`, ``}},
	},
	{
		name:   "claim-forgets",
		what:   "a claim does not remember what it took, so that one that is sent again takes more",
		faults: []string{"drop-claims"},
		by:     []string{"starts", "one-end"},
		edits: []edit{{"redisstore/claim.lua", `keep(KEYS[1], ARGV[1], table.concat(taken, ' ') .. '|' .. table.concat(expired, ' ') .. '|' .. held)
`, ``}},
	},
	{
		name:   "unique-until-started",
		what:   "a unique key is free as soon as its job runs",
		faults: mild,
		by:     []string{"acknowledged"},
		edits: []edit{{"redisstore/common.lua", `local lives = m.state == 'scheduled' or m.state == 'blocked' or m.state == 'running'
  if not lives`, `local lives = m.state == 'scheduled' or m.state == 'blocked'
  if not lives`}},
	},
	{
		name:   "full-is-ok",
		what:   "an enqueue that the store refuses since it is full is answered as if it were done",
		faults: []string{"maxmemory"},
		by:     []string{"acknowledged"},
		edits: []edit{{"outbox.go", `		if errors.Is(err, ErrStoreFull) || errors.Is(err, ErrSuperseded) || !box.awaited(batch, err) {
`, `		if errors.Is(err, ErrStoreFull) {
			return EnqueueReply{Existing: make([]State, len(records))}, nil
		}
		if errors.Is(err, ErrSuperseded) || !box.awaited(batch, err) {
`}},
	},
	{
		name:   "unknown-is-no",
		what:   "a call that was sent and is waited for no longer is said not to have been made",
		faults: []string{"cut-all", "drop-enqueues"},
		by:     []string{"acknowledged"},
		edits: []edit{{"outbox.go", `		return parcelReply{err: fmt.Errorf("%w: %w (%w)", ErrUnconfirmed, ctx.Err(), p.failed)}
	}
	return parcelReply{err: fmt.Errorf("%w: %w", ErrUnconfirmed, ctx.Err())}`, `		return parcelReply{err: fmt.Errorf("dianemo: enqueue: %w (%w)", ctx.Err(), p.failed)}
	}
	return parcelReply{err: fmt.Errorf("dianemo: enqueue: %w", ctx.Err())}`}},
	},
	{
		name:   "results-dropped",
		what:   "a peer gives up settling after four tries, and the results that it kept are gone",
		faults: []string{"cut-one", "cut-all"},
		by:     []string{"one-end", "starts"},
		edits: []edit{{"work.go", `		if !pause(ctx, backoff(attempt, 20*time.Millisecond, 2*time.Second)) {
`, `		if attempt == 4 && len(settle) > 0 {
			return TurnReply{}, begin, true
		}
		if !pause(ctx, backoff(attempt, 20*time.Millisecond, 2*time.Second)) {
`}},
	},
	{
		name:   "given-back-alive",
		what:   "a peer that shuts down gives back the jobs whose handlers it has asked to stop, and does not wait for them",
		faults: []string{"terminate"},
		by:     []string{"epochs", "one-end", "tokens"},
		edits: []edit{{"dianemo.go", `	for _, r := range p.held() {
		r.cancel(ErrShutdown)
	}
`, `	for _, r := range p.held() {
		r.cancel(ErrShutdown)
		r.partition.finish(r, r.settlement(ErrShutdown, ErrShutdown))
	}
`}},
	},
	{
		name:   "lease-for-ever",
		what:   "whoever bids for the lease lengthens that of the peer that has it, even if that is dead",
		faults: []string{"kill-leader"},
		by:     []string{"calm", "occurrences"},
		edits: []edit{{"redisstore/lead.lua", `if redis.call('PTTL', KEYS[1]) > tonumber(lease) then redis.call('PEXPIRE', KEYS[1], lease) end`,
			`redis.call('PEXPIRE', KEYS[1], lease)`}},
	},
	{
		name:   "reap-uncounted",
		what:   "a job taken from a silent peer still counts as running",
		faults: []string{"kill-peer", "kill-leader"},
		by:     []string{"records"},
		edits: []edit{{"redisstore/reap.lua", `      add('running', ARGV[a + 2], -1)
`, ``}},
	},
	{
		name:   "lane-unlisted",
		what:   "a retry's lane is put right in the list of lanes, but not put there",
		faults: mild,
		by:     []string{"calm", "records"},
		edits: []edit{{"redisstore/settle.lua", `if redis.call('ZADD', KEYS[4], 'LT', 'CH', int(due), ARGV[1 + target * 4]) == 1 then`,
			`if redis.call('ZADD', KEYS[4], 'XX', 'CH', int(due), ARGV[1 + target * 4]) == 1 then`}},
	},
	{
		name:   "end-unlisted",
		what:   "a job that is cancelled while it waits is not listed among those that have ended",
		faults: mild,
		by:     []string{"records", "acknowledged"},
		edits: []edit{{"redisstore/cancel.lua", `  redis.call('ZADD', KEYS[6 + 2 * lane], unpack(scores))
`, ``}},
	},
	{
		name:   "key-outside",
		what:   "the memory of calls stands outside the namespace",
		faults: mild,
		by:     []string{"foreign"},
		edits: []edit{{"redisstore/keys.go", `	return string(t) + "call:" + string(edge) + ":" + caller`,
			`	return "call:" + string(t) + string(edge) + ":" + caller`}},
	},
	{
		name:   "stale-group",
		what:   "a success without a result, of which many are settled together, is taken from whoever brings it",
		faults: []string{"pause-peer", "pause-leader"},
		by:     []string{"epochs", "one-end", "starts", "records"},
		edits: []edit{{"redisstore/settle.lua", `      if not m or m.epoch ~= epoch or m.peer ~= peer then
        refuse(id, epoch)`, `      if not m then
        refuse(id, epoch)`}},
	},
	{
		name:   "weight-ignored",
		what:   "a peer claims each kind as if its jobs weighed one token",
		faults: mild,
		by:     []string{"tokens"},
		edits: []edit{{"work.go", `Weight: inherit(kind.policy.Weight, 1),`,
			`Weight: 1,`}},
	},
	{
		name:   "own-weight-ignored",
		what:   "a claim takes a job for as heavy as its kind, whatever it says of itself",
		faults: mild,
		by:     []string{"tokens"},
		edits: []edit{{"redisstore/claim.lua", `if m then weighs, size = tonumber(m.weight) or weight, tonumber(m.size) or 0 end`,
			`if m then size = tonumber(m.size) or 0 end`}},
	},
	{
		name:   "one-reserve",
		what:   "only the reserve of the level before is kept from a job, not those of all levels before",
		faults: []string{"cut-all"},
		by:     []string{"tokens"},
		edits: []edit{{"tokens.go", `		reserved += l.reserve[q]`,
			`		reserved = l.reserve[q]`}},
	},
	{
		name:   "rerun-costs-retry",
		what:   "a run that was lost uses up one of the job's retries",
		faults: []string{"kill-peer"},
		by:     []string{"starts"},
		edits:  []edit{{"run.go", `if r.fails < retries {`, `if r.attempt <= retries {`}},
	},
	{
		name:   "grace-halved",
		what:   "a claim ends what has waited for half its grace",
		faults: []string{"cut-all"},
		by:     []string{"starts"},
		edits: []edit{{"redisstore/claim.lua", `local earliest = grace >= 0 and now - grace or -math.huge`,
			`local earliest = grace >= 0 and now - grace / 2 or -math.huge`}},
	},
	{
		name:   "lane-missed",
		what:   "when one job of a lane is too late, all that are due there are missed",
		faults: []string{"cut-all"},
		by:     []string{"starts"},
		edits:  []edit{{"redisstore/miss.lua", `local before = '(' .. int(now - ARGV[7])`, `local before = int(now)`}},
	},
	{
		name:   "results-left",
		what:   "a peer that shuts down does not wait for its results to be stored",
		faults: []string{"terminate", "delay", "drop-settles"},
		by:     []string{"calm"},
		edits: []edit{{"work.go", `func (part *partition) idle() bool { return part.count() == 0 }`,
			`func (part *partition) idle() bool { return len(part.runs()) == 0 }`}},
	},
	{
		name:   "late-takeover",
		what:   "a claim makes its peer live for 20 seconds, not for as long as it may be silent",
		faults: []string{"kill-peer"},
		by:     []string{"calm"},
		edits:  []edit{{"redisstore/turn.go", `args = append(args, claim.SilentAfter.Milliseconds(), hold)`, `args = append(args, 10*claim.SilentAfter.Milliseconds(), hold)`}},
	},
	{
		name:   "quits-on-outage",
		what:   "a peer that can't show itself ends",
		faults: []string{"redis-kill"},
		by:     []string{"calm"},
		edits:  []edit{{"beat.go", `if errors.Is(err, ErrLayout) {`, `if err != nil || errors.Is(err, ErrLayout) {`}},
	},
	{
		name:   "last-parcel",
		what:   "of a large enqueue only each partition's last part is sent",
		faults: mild,
		by:     []string{"acknowledged"},
		edits: []edit{{"outbox.go", `			parcels = append(parcels, p.parcel)
`, ``}, {"outbox.go", `	return parcels
`, `	for _, p := range last {
		parcels = append(parcels, p.parcel)
	}
	return parcels
`}},
	},
	{
		name:   "first-page",
		what:   "only the first hundred children are told",
		faults: mild,
		by:     []string{"one-end", "calm", "records"},
		edits:  []edit{{"redisstore/heirs.lua", `#edges < left and 1 or 0`, `1`}},
	},
	{
		name:   "untold-of-missed",
		what:   "the children of a job that is missed are not told",
		faults: []string{"cut-all"},
		by:     []string{"one-end", "calm", "records"},
		edits: []edit{{"redisstore/miss.lua", `  bequeath(ids)
`, ``}, {"redisstore/claim.lua", `bequeath(gone)
touch(`, `touch(`}},
	},
}
