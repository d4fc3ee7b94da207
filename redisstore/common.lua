-- Every script begins with this: the clock, the memory of calls, and how a
-- job's mutable fields are read and written.

-- The partition's one clock. now is in ms, now_us in µs.
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)

-- A number as Redis must get it: .. would turn a large one into 1.7e+15.
local function int(n) return string.format('%.0f', n) end

-- plain is a score as a record can have it, in digits, whatever someone's hand has made of it. The embedded Redis writes a
-- round one as 1e+12, which tonumber does not read there.
local function plain(score)
  if #score <= 15 and not score:find('%D') then return score end
  if score:find('inf', 1, true) then score = score:sub(1, 1) == '-' and -9e14 or 8.9e15 end
  return int(math.max(math.min(score + 0, 8.9e15), -9e14))
end

-- recall answers whether this call was here before: with its kept answer, or
-- with nil and true if a later call of the same caller was.
local function recall(key, number)
  local kept = redis.call('GET', key)
  if not kept then return nil, false end
  local last, answer = kept:match('^(%d+) (.*)$')
  last, number = tonumber(last), tonumber(number)
  if last == number then return answer, false end
  return nil, last ~= nil and number < last
end

local function keep(key, number, answer)
  redis.call('SET', key, number .. ' ' .. answer, 'PX', 3600000)
end

-- term_of is a stored term; 0 if it is none that a leader can have had, or the last that could be told from the next.
local function term_of(s)
  local term = s and #s <= 16 and tonumber(s:match('^%d+$') or 0) or 0
  return term < 9e15 and term or 0
end

-- deposed reports whether a leader of a later term than this one has done chores in the partition.
local function deposed(info, term) return tonumber(term) < term_of(redis.call('HGET', info, 'term')) end

-- A job's mutable fields, one string: the version, these fields, and a tail
-- that later programs may add to and that this one copies. What a settlement
-- looks at and changes stands first, so that the rest need not be taken apart.

local function fresh(lane, due)
  return {state = 'scheduled', reason = '', ended = '', epoch = '0', peer = '', lane = lane, due = due, started = '',
    fails = '0', reruns = '0', runs = '0', max_reruns = '', weight = '', size = '', unique = '', tail = ''}
end

-- lane_of tells whether parseBase in keys.go can take a lane's base name apart. Most jobs are in few lanes.
local known_lanes = {}
local function lane_of(base)
  local known = known_lanes[base]
  if known == nil then
    local kind, grace, weight = base:match('^([%w._/@+-]+):[1-9]:(%-?%d+):(%d+)$')
    known = kind and #kind <= 128 and (grace == '-1' or grace == '0' or grace:find('^[1-9]%d*$') and #grace <= 13 and tonumber(grace) <= 9223372036854)
      and (weight == '0' or weight:find('^[1-9]%d*$') and #weight <= 7 and tonumber(weight) <= 1048576) and true or false
    known_lanes[base] = known
  end
  return known
end

-- read returns the fields, or nil and why not: 'newer' (leave it alone) or
-- 'corrupt'. It never fails on what it finds, and refuses what parseMeta in
-- meta.go does: arithmetic with a field never fails, nor does its lane's name.
local states = {scheduled = true, blocked = true, running = true, succeeded = true, failed = true, missed = true,
  unreachable = true, cancelled = true, skipped = true}
local FIELDS = '^1|([^|]*)|([^|]*)|(%d*)|(%d+)|([^|]*)|([^|]*)|(%-?%d+)|(%d*)|(%d+)|(%d+)|(%d+)|(%d*)|(%d*)|(%d*)|([^|]*)|(.*)$'
local function read(s)
  local m = {}
  m.state, m.reason, m.ended, m.epoch, m.peer, m.lane, m.due, m.started, m.fails, m.reruns, m.runs,
    m.max_reruns, m.weight, m.size, m.unique, m.tail = s:match(FIELDS)
  -- A number of 16 characters is one that a double has exactly, or nearly; an epoch, and those that follow it, exactly.
  if states[m.state] and #m.ended <= 16 and #m.epoch <= 16 and m.epoch + 0 <= 9e15 and #m.due <= 16 and #m.started <= 16 and #m.fails <= 9 and #m.reruns <= 9
    and #m.runs <= 9 and #m.max_reruns <= 9 and #m.weight <= 9 and #m.size <= 9 and lane_of(m.lane) then
    return m
  end
  local version = s:match('^(%d+)|')
  if version and #version <= 18 and tonumber(version) > 1 then return nil, 'newer' end
  return nil, 'corrupt'
end

local function write(m)
  return table.concat({'1', m.state, m.reason, m.ended, m.epoch, m.peer, m.lane, m.due, m.started, m.fails, m.reruns, m.runs,
    m.max_reruns, m.weight, m.size, m.unique, m.tail}, '|')
end

-- waits names the lane in which a job waits, or did before it was run.
local function waits(m)
  if tonumber(m.runs) > 0 then return m.lane .. ':again' end
  return m.lane .. ':new'
end

-- class_of is the 'kind:priority' of a lane's base name.
local function class_of(base) return base:match('^[^:]*:[^:]*') end

-- start_by is until when a blocked job must start: a time of its own and its grace say so, else nothing does.
local function start_by(m)
  local grace = m.lane:match('^[^:]*:[^:]*:(%d+):')
  if m.due + 0 <= 0 or not grace then return '253402300799999' end -- the end of the year 9999
  return int(m.due + grace)
end

-- A running job that someone cancelled: its record says so, and what would start it again ends it.
local function marked(m) return m.state == 'running' and m.reason == 'cancel' end

-- A unique slot names a job: 'id|f or s|until when (ms, 0 no limit)|starts of the job when it took the slot'. It is held for
-- as long as that job has not ended (f) or has not been started since (s). Nothing frees it but this: what ends or
-- deletes the job has done so. holder returns the id of who holds it, its state, its record, and whether it has been
-- started; or nil.
local function holder(unique, spec, meta, slot)
  local value = redis.call('HGET', unique, slot)
  local id, till, expires, runs
  if value then id, till, expires, runs = value:match('^([^|]+)|([fs])|(%d+)|(%d+)$') end
  if not id or #expires > 15 or expires ~= '0' and now >= tonumber(expires) or redis.call('HEXISTS', spec, id) == 0 then return nil end
  local record = redis.call('HGET', meta, id)
  if not record then return id, 'scheduled', nil, false end
  local m, why = read(record)
  -- What a newer program wrote is taken to live; what is corrupt will not be run.
  if why == 'newer' then return id, 'scheduled', nil, true end
  if not m then return nil end
  local started = m.runs ~= runs or m.state ~= 'scheduled' and m.state ~= 'blocked'
  local lives = m.state == 'scheduled' or m.state == 'blocked' or m.state == 'running'
  if not lives or till == 's' and started then return nil end
  return id, m.state, m, started
end

-- The record's field unique is 'f or s,how long (ms, 0 no limit),slot'. slot_of takes it apart; take is what the slot
-- then says.
local function slot_of(field)
  local till, lasts, slot = field:match('^([fs]),(%d+),(.+)$')
  if till and #lasts <= 15 then return till, lasts, slot end
end
local function take(id, till, lasts, runs)
  if lasts ~= '0' then lasts = int(now + lasts) end
  return id .. '|' .. till .. '|' .. lasts .. '|' .. runs
end

-- typed fails, before anything is written, if one of the keys has another type than the script needs: Redis keeps what a
-- script wrote before it failed.
local function typed(hashes, zsets)
  for _, key in ipairs(hashes) do redis.call('HLEN', key) end
  for _, key in ipairs(zsets) do redis.call('ZCARD', key) end
end

-- add counts n jobs of 'kind:priority' in a state; tally writes the sums.
local sums = {}
local function add(state, class, n)
  local field = state .. ':' .. class
  sums[field] = (sums[field] or 0) + n
end
local function tally(counts)
  for field, n in pairs(sums) do
    if n ~= 0 then
      local answer = redis.pcall('HINCRBY', counts, field, n)
      -- What is no number counts nothing; repair counts again.
      if type(answer) == 'table' then redis.call('HSET', counts, field, math.max(n, 0)) end
    end
  end
end

-- Jobs that have children stand in kids, with how often these were to be told of something and the last that was told:
-- 'number|id'; the number only grows, whatever the clock does. When such a job ends, or no longer has, it goes into the
-- outbox, from which its children are told bit by bit, from the first on. The last two keys of the scripts that do this are
-- kids and outbox. bequeath returns how many of these jobs have children, and the numbers by their ids.
local function bequeath(ids)
  local kids, outbox = KEYS[#KEYS - 1], KEYS[#KEYS]
  local numbers = {}
  if #ids == 0 or redis.call('HLEN', kids) == 0 then return 0, numbers end
  local fields, scores = {}, {}
  for from = 1, #ids, 1000 do
    local last = math.min(from + 999, #ids)
    local had = redis.call('HMGET', kids, unpack(ids, from, last))
    for j = from, last do
      local value = had[j - from + 1]
      if value then
        local number = int(math.max((tonumber(value:match('^(%d+)|') or 0) or 0) + 1, now_us))
        numbers[ids[j]] = number
        fields[#fields + 1] = ids[j]
        fields[#fields + 1] = number .. '|'
        scores[#scores + 1] = int(now_us)
        scores[#scores + 1] = ids[j]
      end
    end
  end
  if #scores == 0 then return 0, numbers end
  redis.call('HSET', kids, unpack(fields))
  redis.call('ZADD', outbox, unpack(scores))
  return #scores / 2, numbers
end

-- since is when something came into the outbox (µs), as its score says; 0 if that is none that bequeath has written.
local function since(score)
  local at = score + 0 -- not tonumber: miniredis writes 2e+15, which its Lua takes for a number here alone
  if at ~= at or at < 0 or at > 1e16 then return '0' end
  return int(at)
end

-- Of what a job waits for, needs has under id|| the numbers: how many parents and gates, how many of these have ended
-- otherwise, and of those how many only since a decision left them out (of a workflow: since they were cancelled); how many
-- were left out and count as done all the same, and whether one has ended as it should; behind a # the number of who said
-- so, since what others said who never enqueued the job counts no more; then for how long (ms) the job is kept for which
-- peer, once it is released. totals takes that apart, corrupt if it can't; sums_of puts it together.
local function totals(s)
  local p, v, l, o, f, by, wait, peer = s:match('^(%d+),(%d+),(%d+),(%d+),([01])#(%d*) ?(%d*) ?(%S*)$')
  local ok = p and #p <= 9 and #v <= 9 and #l <= 9 and #o <= 9 and #wait <= 9
  if not ok then p, v, l, o = 0, 0, 0, 0 end
  local t = {pending = tonumber(p), violated = tonumber(v), left = tonumber(l), out = tonumber(o), fit = f == '1',
    by = by or '', wait = wait or '', peer = peer or ''}
  t.corrupt = s ~= '' and (not ok or t.violated > t.pending or t.left > t.violated)
  return t
end
local function sums_of(t)
  local s = int(math.max(t.pending, 0)) .. ',' .. int(math.max(t.violated, 0)) .. ',' .. int(math.max(t.left, 0)) .. ',' .. int(math.max(t.out, 0)) .. ','
    .. (t.fit and '1' or '0') .. '#' .. t.by
  if t.peer ~= '' then s = s .. ' ' .. t.wait .. ' ' .. t.peer end
  return s
end

-- A workflow is a job of such a kind, of which there are no lanes: it is blocked until its jobs have ended.
local function is_workflow(base) return base:sub(1, 9) == 'workflow/' end

-- stance is what the children of a job in this record hear of it: its state, or 'unchosen', if a decision left it out; and
-- a ! and whom it chose, if it was a decision, else ''. See decision in read.go.
local function stance(m, id, result)
  if m.reason == 'choice' and m.state == 'skipped' then return 'unchosen', '' end
  if m.reason == 'choice' and m.state == 'succeeded' then
    return m.state, (redis.call('HGET', result, id) or ''):match('^![^\n]*') or '!'
  end
  return m.state, ''
end

-- gate_of is what the jobs of a workflow hear of its gate. While that is closed, or closed again by a new submission, what
-- became of the workflow before is nobody's business.
local function gate_of(m, gone, id, needs)
  if redis.call('HEXISTS', needs, id .. '|') == 1 then return 'closed' end
  return (gone or m and (m.state == 'cancelled' or m.reason == 'cancel')) and 'void' or 'open'
end

-- childless tells whether there are no edges from here, with this mark. Edges are found by their names, which works only
-- while all have the same score: if one has another, that is not known.
local function childless(edges, parent, mark)
  if redis.call('ZCOUNT', edges, '-inf', '(0') + redis.call('ZCOUNT', edges, '(0', '+inf') > 0 then return false end
  return not redis.call('ZRANGEBYLEX', edges, '[' .. parent .. mark, '(' .. parent .. (mark == '#' and '$' or '}'), 'LIMIT', 0, 1)[1]
end

-- void tells whether this is the record of a workflow that was never wholly submitted: its id is free.
local function void(record)
  local m = record and read(record)
  return m and is_workflow(m.lane) and m.state == 'cancelled' and m.reason == 'gate'
end

-- first puts a lane's earliest due time right in the index of lanes.
local function first(lanes, name, lane)
  local head = redis.call('ZRANGE', lane, 0, 0, 'WITHSCORES')
  if head[2] then
    redis.call('ZADD', lanes, head[2], name)
  else
    redis.call('ZREM', lanes, name)
  end
end

-- signs reads what touch needs, and which kinds are paused, separated by spaces.
local function signs(info) return redis.call('HMGET', info, 'alive', 'up_since', 'every', 'paused') end

-- touch is a sign of life in the partition. When nobody gave one for one and a
-- half beat intervals, though the leader gives one in each, Redis or the network
-- was away: nobody's silence counts before now. A shorter outage goes unnoticed
-- and makes a peer's silence, with the intervals before and after, 3.5 at most,
-- so the limit of silence is 4 or more.
-- The leader's interval is kept, so that a peer with a shorter one of its own
-- does not take every pause for an outage. Returns since when silence counts.
-- had is what signs(info) has read, if it was asked before.
local function touch(info, every, had)
  had = had or signs(info)
  local alive, since = tonumber(had[1]), tonumber(had[2])
  local widest = math.max(tonumber(every), tonumber(had[3]) or 0)
  -- Nor does it count before a time that is yet to come, which a clock that was set back leaves.
  if not alive or not since or since > now or now - alive > 1.5 * widest then since = now end
  if not alive or since == now or math.abs(now - alive) > widest / 50 then
    redis.call('HSET', info, 'alive', int(now), 'up_since', int(since))
  end
  return since
end

-- expire ends jobs past their grace: those that never ran as missed, others as
-- failed with their last error. jobs holds id, due, meta string or false.
local function expire(meta, lane, ended, state, base, class, jobs)
  local ids, fields, scores = {}, {}, {}
  for _, job in ipairs(jobs) do
    local m = job[3] and read(job[3]) or fresh(base, job[2])
    m.state, m.lane, m.ended, m.reason = state, base, int(now), 'grace'
    ids[#ids + 1] = job[1]
    fields[#fields + 1] = job[1]
    fields[#fields + 1] = write(m)
    scores[#scores + 1] = int(now)
    scores[#scores + 1] = job[1]
  end
  if #ids == 0 then return end
  redis.call('HSET', meta, unpack(fields))
  redis.call('ZREM', lane, unpack(ids))
  redis.call('ZADD', ended, unpack(scores))
  add(state, class, #ids)
end
