-- claim: scheduled -> running; past its grace: -> missed if it never ran, else failed.
-- KEYS  1 call, 2 spec, 3 meta, 4 run:<peer>, 5 beats, 6 info, 7 lanes, 8 counts,
--       then for each lane: the lane, the set of ended jobs for its expired; then kids, outbox
-- ARGV  1 call number, 2 peer, 3 jobs at most, 4 bytes at most, 5 beat interval (ms),
--       6 first lane of the page, 7 length of the page, 8 newest spec version, 9..17 room at levels 1..9,
--       18 how long the peer may be silent (ms), 19 name of the lane that it asks to hold, or '',
--       then for each lane: name, base name, 'kind:priority', priority, grace (ms, -1 none), state of the expired,
--       weight override (rounded up; 0 none), weight, max_reruns,
--       then for each job that is kept for this peer, no id twice: place of its lane, id, until when it is kept (ms)
-- Reply {'ok', now (µs), batches of jobs {place of the lane, words, texts}, {id, state, base name of the expired, ...}, {lane, due, ...},
--       paused kinds, separated by spaces, 1 if it holds the lane}, {'superseded'}
--       words: for each job its id, when it is due, or, if it had a record, r and the length of that, and the length of
--       its spec, - if that is missing; texts: their records and specs, one behind the other
-- A job that is kept for the peer is claimed before it is due, and is due then. If it is due later than it is kept, it was put
-- off meanwhile: it is left alone.
-- The lanes of a paused kind are passed over: nothing in them is claimed, nor ended here for its grace.
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end

local jobs, expired = {}, {}
local PAGE = {tonumber(ARGV[6]), tonumber(ARGV[7])}
local held = 0
local had_signs = signs(KEYS[6])
local function reply()
  local page = redis.call('ZRANGE', KEYS[7], PAGE[1], PAGE[1] + PAGE[2] - 1, 'WITHSCORES')
  return {'ok', int(now_us), jobs, expired, page, had_signs[4] or '', held}
end

-- One long string costs Redis and the peer less than many short ones. Most specs have one of a few lengths.
local sizes = {}
local function size_of(s)
  local size = sizes[#s] or int(#s)
  sizes[#s] = size
  return size
end

if answer then
  -- The same call again: the jobs that it got and that still run here.
  local got, gone, hold = answer:match('^(.*)|(.*)|(.*)$')
  held = tonumber(hold)
  local ids = {}
  for id in got:gmatch('%S+') do ids[#ids + 1] = id end
  for word in gone:gmatch('%S+') do expired[#expired + 1] = word end
  local words, texts = {}, {}
  if #ids > 0 then
    local metas, specs = redis.call('HMGET', KEYS[3], unpack(ids)), redis.call('HMGET', KEYS[2], unpack(ids))
    for j, id in ipairs(ids) do
      local m = metas[j] and read(metas[j])
      if m and m.state == 'running' and m.peer == ARGV[2] then
        words[#words + 1] = id .. ' r' .. size_of(metas[j]) .. ' ' .. (specs[j] and size_of(specs[j]) or '-')
        texts[#texts + 1] = metas[j] .. (specs[j] or '')
      end
    end
  end
  jobs[1] = {0, table.concat(words, ' '), table.concat(texts)}
  return reply()
end

local room = {}
for level = 1, 9 do room[level] = tonumber(ARGV[8 + level]) end
local limit, bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local newest = ARGV[8]:byte(1, 1)

-- What is to be written, gathered by the checks.
local taken, metas, runs, touched, n = {}, {}, {}, {}, 0
local full = false
local stamp, epoch = int(now), int(now_us)
-- How many jobs the whole call may look at without taking them, so that it holds Redis no longer than 5 ms.
local spare = 500
local paused
for kind in (had_signs[4] or ''):gmatch('%S+') do
  paused = paused or {}
  paused[kind] = true
end

local lanes = (#KEYS - 10) / 2
local asked = {}
for i = 20 + lanes * 9, #ARGV, 3 do
  local lane = tonumber(ARGV[i])
  asked[lane] = asked[lane] or {ids = {}, till = {}}
  table.insert(asked[lane].ids, ARGV[i + 1])
  table.insert(asked[lane].till, tonumber(ARGV[i + 2]))
end
-- kept_in returns those of the jobs that are in the lane, not due, and kept; nil for none.
local function kept_in(key, jobs)
  local found = {}
  for j, due in ipairs(redis.call('ZMSCORE', key, unpack(jobs.ids))) do
    due = due and due + 0
    if due and now < due and due <= jobs.till[j] then
      found[#found + 1] = jobs.ids[j]
    end
  end
  return found[1] and found
end

-- dues_of tells when each of a lane's jobs is due, in the order of the lane. Redis prints each score that it tells, which costs
-- as much as all else there is to read of a job. But those that were enqueued together are due in the same ms, and where two
-- are, so are all between them.
local function dues_of(key, ids)
  local count = #ids
  local ends, dues = redis.call('ZMSCORE', key, ids[1], ids[count]), {}
  ends[1], ends[2] = plain(ends[1]), plain(ends[2])
  if ends[1] ~= ends[2] and (ends[2] - ends[1]) * 8 > count then
    dues = redis.call('ZMSCORE', key, unpack(ids))
    for j = 1, count do dues[j] = plain(dues[j]) end
    return dues
  end
  local function between(from, first, to, last)
    if first == last then
      for j = from, to do dues[j] = first end
      return
    end
    dues[from], dues[to] = first, last
    if to - from < 2 then return end
    local middle = math.floor((from + to) / 2)
    local due = plain(redis.call('ZSCORE', key, ids[middle]))
    between(from, first, middle, due)
    between(middle, due, to, last)
  end
  between(1, ends[1], count, ends[2])
  return dues
end

for lane = 1, lanes do
  local key, a = KEYS[8 + lane * 2 - 1], 20 + (lane - 1) * 9
  local base, class, priority, grace = ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
  local override, weight, max_reruns = tonumber(ARGV[a + 6]), tonumber(ARGV[a + 7]), ARGV[a + 8]
  -- The lightest job that this lane can hold.
  local least = weight
  if override > 0 then least = math.floor(override / 2) + 1 end
  local earliest = grace >= 0 and now - grace or -math.huge
  -- The record of a job that has none yet, around its due time.
  local before = '1|running|||' .. epoch .. '|' .. ARGV[2] .. '|' .. base .. '|'
  local after = '|' .. stamp .. '|0|0|1|' .. max_reruns .. '||||'
  local late, stray, begun, from, heads, words, texts = {}, {}, n, 0, true, {}, {}
  local rests = paused and paused[class:match('^[^:]*')]
  -- These come first: what is due can be run elsewhere meanwhile.
  local kept = not rests and asked[lane] and kept_in(key, asked[lane])
  while not rests and not full and n < limit and spare > 0 do
    local cap = room[1]
    for level = 2, priority do cap = math.min(cap, room[level]) end
    local most = math.min(limit - n, math.floor(cap / least))
    if most < 1 then break end
    -- Where weights differ, more is looked at than may fit.
    if override > 0 then most = math.max(most, 50) end
    local ids = kept or redis.call('ZRANGEBYSCORE', key, '-inf', stamp, 'LIMIT', from, most)
    local count = #ids
    if count == 0 then break end
    local times = not kept and dues_of(key, ids)
    -- The head of a lane is what expires first.
    local expires = times and times[1] + 0 < earliest
    local had = redis.call('HMGET', KEYS[3], unpack(ids))
    local wanted, dues, records, w = {}, {}, {}, 0
    local alike = times and not expires and bytes >= 0
    for j = 1, count do
      if had[j] then
        alike = false
        break
      end
    end
    if alike then
      -- Most lanes: none of these has a record, and what fits stands first.
      wanted, dues, w = ids, times, math.min(count, limit - n, math.floor(cap / weight))
    else
      for j = 1, count do
        local due, record, weighs, m, why = times and times[j] or stamp, had[j], weight, nil, nil
        local size = 0
        if record then
          m, why = read(record)
          if m then weighs, size = tonumber(m.weight) or weight, tonumber(m.size) or 0 end
        end
        if why == 'newer' then
          -- Left alone: a newer program wrote it.
        elseif m and m.state ~= 'scheduled' then
          -- The record decides, and it is elsewhere: the lane is wrong.
          stray[#stray + 1] = ids[j]
        elseif expires and not why and tonumber(due) < earliest then
          late[#late + 1] = {ids[j], due, record}
        elseif full or size > bytes and n + w > 0 then
          full = true
        elseif weighs <= cap and n + w < limit then
          w = w + 1
          bytes, cap = bytes - size, cap - weighs
          wanted[w], dues[w] = ids[j], due
          if record then records[w] = {m = m or fresh(base, due), why = why, weight = weighs} end
        end
      end
    end
    local specs = w > 0 and redis.call('HMGET', KEYS[2], unpack(wanted, 1, w))
    local spent, had_n = 0, n
    local at, usual -- the record of those that are due then
    local t = #texts
    for j = 1, w do
      local id, spec, record = wanted[j], specs[j], records[j]
      -- A spec of a newer program is left alone; a missing one makes the job corrupt.
      if not spec or spec:byte(1, 1) <= newest then
        local due, e, meta = dues[j], epoch, nil
        if record then
          local m = record.m
          e = int(math.max(m.epoch + 1, now_us))
          m.state, m.reason, m.ended, m.epoch, m.peer = 'running', record.why or '', '', e, ARGV[2]
          m.lane, m.due, m.started, m.runs = base, due, stamp, int(m.runs + 1)
          if m.max_reruns == '' then m.max_reruns = max_reruns end
          meta = write(m)
          t = t + 1
          texts[t], due = meta, 'r' .. size_of(meta)
          spent = spent + record.weight
        else
          if due ~= at then at, usual = due, before .. due .. after end
          meta = usual
          spent = spent + weight
        end
        n = n + 1
        local m = n * 2
        taken[n] = id
        metas[m - 1], metas[m] = id, meta
        runs[m - 1], runs[m] = e, id
        local k = (n - begun) * 3
        words[k - 2], words[k - 1], words[k] = id, due, '-'
        if spec then
          t = t + 1
          words[k], texts[t] = size_of(spec), spec
        end
      end
    end
    for level = 1, priority do room[level] = room[level] - spent end
    spare = spare - (count - (n - had_n))
    if kept then
      -- They stand behind all that is due, so what is found next begins at the head all the same.
      heads, kept = n == begun, nil
    else
      from = from + count
      heads = heads and n - begun == from
      if count < most then break end
    end
  end
  if n > begun or #late + #stray > 0 then touched[lane] = {first = begun + 1, last = n, heads = heads, late = late, stray = stray} end
  if n > begun then jobs[#jobs + 1] = {lane, table.concat(words, ' '), table.concat(texts)} end
  add('running', class, n - begun)
end

typed({KEYS[8]}, {KEYS[4], KEYS[5], KEYS[7]}) -- signs has read info
for lane, found in pairs(touched) do
  if #found.late > 0 then typed({KEYS[#KEYS - 1]}, {KEYS[8 + lane * 2], KEYS[#KEYS]}) end
end
-- All checks are done; from here on it writes.
local wants = ARGV[19]
if n > 0 then
  redis.call('HSET', KEYS[3], unpack(metas))
  redis.call('ZADD', KEYS[4], unpack(runs))
  -- A claim is a sign of life: a peer that dies before its first beat is found by it.
  redis.call('ZADD', KEYS[5], int(now + ARGV[18]), ARGV[2])
end
for lane, found in pairs(touched) do
  local key, a = KEYS[8 + lane * 2 - 1], 20 + (lane - 1) * 9
  if found.heads then
    -- All from the head on was taken, which is the cheaper way to say it.
    redis.call('ZREMRANGEBYRANK', key, 0, found.last - found.first)
  elseif found.first <= found.last then
    redis.call('ZREM', key, unpack(taken, found.first, found.last))
  end
  if ARGV[a] == wants and found.first <= found.last then
    redis.call('HDEL', KEYS[6], 'hold:' .. wants)
    wants = '' -- it has what it was held for
  end
  if #found.stray > 0 then redis.call('ZREM', key, unpack(found.stray)) end
  expire(KEYS[3], key, KEYS[8 + lane * 2], ARGV[a + 5], ARGV[a + 1], ARGV[a + 2], found.late)
  for _, job in ipairs(found.late) do
    expired[#expired + 1] = job[1]
    expired[#expired + 1] = ARGV[a + 5]
    expired[#expired + 1] = ARGV[a + 1]
  end
  first(KEYS[7], ARGV[a], key)
end
tally(KEYS[8])
local gone = {}
for j = 1, #expired, 3 do gone[#gone + 1] = expired[j] end
bequeath(gone)
touch(KEYS[6], ARGV[5], had_signs)
-- Only one peer at a time saves tokens for the first job of a lane.
if wants ~= '' then
  local hold = 'hold:' .. wants
  local holder, till = (redis.call('HGET', KEYS[6], hold) or ''):match('^(.*)|(%d+)$')
  if not holder or holder == ARGV[2] or till + 0 < now then
    redis.call('HSET', KEYS[6], hold, ARGV[2] .. '|' .. int(now + 2 * ARGV[5]))
    held = 1
  end
end
keep(KEYS[1], ARGV[1], table.concat(taken, ' ') .. '|' .. table.concat(expired, ' ') .. '|' .. held)
return reply()
