-- claim: scheduled -> running; past its grace: -> missed if it never ran, else failed.
-- KEYS  1 call, 2 spec, 3 meta, 4 run:<peer>, 5 beats, 6 info, 7 lanes, 8 counts,
--       then for each lane: the lane, the set of ended jobs for its expired
-- ARGV  1 call number, 2 peer, 3 jobs at most, 4 bytes at most, 5 beat interval (ms),
--       6 first lane of the page, 7 length of the page, 8 newest spec version, 9..17 room at levels 1..9,
--       then for each lane: name, base name, 'kind:priority', priority, grace (ms, -1 none), state of the expired,
--       weight override (rounded up; 0 none), weight, max_reruns
-- Reply {'ok', now (µs), {id, spec or false, meta, corrupt, ...}, {id, state of the expired, ...}, {lane, due, ...}},
--       {'superseded'}
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end

local jobs, expired, touched = {}, {}, {}
local PAGE = {tonumber(ARGV[6]), tonumber(ARGV[7])}
local function reply()
  local page = redis.call('ZRANGE', KEYS[7], PAGE[1], PAGE[1] + PAGE[2] - 1, 'WITHSCORES')
  return {'ok', int(now_us), jobs, expired, page}
end

if answer then
  -- The same call again: the jobs that it got and that still run here.
  local got, gone = answer:match('^(.*)|(.*)$')
  local ids = {}
  for id in got:gmatch('%S+') do ids[#ids + 1] = id end
  for word in gone:gmatch('%S+') do expired[#expired + 1] = word end
  if #ids > 0 then
    local metas, specs = redis.call('HMGET', KEYS[3], unpack(ids)), redis.call('HMGET', KEYS[2], unpack(ids))
    for j, id in ipairs(ids) do
      local m = metas[j] and read(metas[j])
      if m and m.state == 'running' and m.peer == ARGV[2] then
        for _, v in ipairs({id, specs[j], metas[j], m.reason}) do jobs[#jobs + 1] = v end
      end
    end
  end
  return reply()
end

local room = {}
for level = 1, 9 do room[level] = tonumber(ARGV[8 + level]) end
local limit, bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local taken, full = {}, false

for lane = 1, (#KEYS - 8) / 2 do
  local a = 18 + (lane - 1) * 9
  local base, class, priority, grace, state = ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4]), ARGV[a + 5]
  local override, weight, max_reruns = tonumber(ARGV[a + 6]), tonumber(ARGV[a + 7]), ARGV[a + 8]
  -- The lightest job that this lane can hold.
  local least = weight
  if override > 0 then least = math.floor(override / 2) + 1 end
  local late, stray, from, scanned, before = {}, {}, 0, 0, #taken
  while not full and #taken < limit and scanned < 1000 do
    local cap = room[1]
    for level = 2, priority do cap = math.min(cap, room[level]) end
    local n = math.min(limit - #taken, math.floor(cap / least))
    if n < 1 then break end
    local found = redis.call('ZRANGEBYSCORE', KEYS[8 + lane * 2 - 1], '-inf', int(now), 'WITHSCORES', 'LIMIT', from, n)
    if #found == 0 then break end
    local ids = {}
    for j = 1, #found, 2 do ids[#ids + 1] = found[j] end
    local metas = redis.call('HMGET', KEYS[3], unpack(ids))
    local fits, wanted = {}, {}
    for j, id in ipairs(ids) do
      local due, m, why = tonumber(found[j * 2]), nil, nil
      if metas[j] then m, why = read(metas[j]) end
      if why == 'newer' then
        -- Left alone: a newer program wrote it.
      elseif m and m.state ~= 'scheduled' then
        -- The record decides, and it is elsewhere: the lane is wrong.
        stray[#stray + 1] = id
      elseif grace >= 0 and due < now - grace and not why then
        late[#late + 1] = {id, int(due), metas[j]}
      elseif not full then
        m = m or fresh(base, int(due))
        local w, size = tonumber(m.weight) or weight, tonumber(m.size) or 0
        if size > bytes and #taken + #fits > 0 then
          full = true
        elseif w <= cap then
          bytes, cap = bytes - size, cap - w
          if m.max_reruns == '' then m.max_reruns = max_reruns end
          m.lane, m.due, m.reason = base, int(due), why or ''
          fits[#fits + 1] = {id = id, m = m, lane = lane, class = class, weight = w}
          wanted[#wanted + 1] = id
        end
      end
    end
    local specs = #wanted > 0 and redis.call('HMGET', KEYS[2], unpack(wanted))
    for j, job in ipairs(fits) do
      job.spec = specs[j]
      -- A spec of a newer program is left alone; a missing one makes the job corrupt.
      if not job.spec or job.spec:sub(1, 1) <= ARGV[8] then
        if not job.spec then job.m.reason = 'corrupt' end
        for level = 1, priority do room[level] = room[level] - job.weight end
        taken[#taken + 1] = job
      end
    end
    scanned, from = scanned + #ids, from + #ids
    if #ids < n then break end
  end
  if #late + #stray > 0 or #taken > before then touched[lane] = {late = late, stray = stray} end
end

-- All checks are done; from here on it writes.
local metas, scores, gone, ids = {}, {}, {}, {}
for _, job in ipairs(taken) do
  local id, m, lane = job.id, job.m, job.lane
  m.state, m.peer, m.started, m.ended = 'running', ARGV[2], int(now), ''
  m.epoch = int(math.max(m.epoch + 1, now_us))
  m.runs = int(m.runs + 1)
  local s = write(m)
  metas[#metas + 1] = id
  metas[#metas + 1] = s
  scores[#scores + 1] = m.epoch
  scores[#scores + 1] = id
  gone[lane] = gone[lane] or {}
  table.insert(gone[lane], id)
  ids[#ids + 1] = id
  add('running', job.class, 1)
  jobs[#jobs + 1] = id
  jobs[#jobs + 1] = job.spec
  jobs[#jobs + 1] = s
  jobs[#jobs + 1] = m.reason
end
if #taken > 0 then
  redis.call('HSET', KEYS[3], unpack(metas))
  redis.call('ZADD', KEYS[4], unpack(scores))
  -- A claim is a sign of life: a peer that dies before its first beat is found by it.
  redis.call('ZADD', KEYS[5], int(now), ARGV[2])
end
for lane, found in pairs(touched) do
  local key, a, late = KEYS[8 + lane * 2 - 1], 18 + (lane - 1) * 9, found.late
  if gone[lane] then redis.call('ZREM', key, unpack(gone[lane])) end
  if #found.stray > 0 then redis.call('ZREM', key, unpack(found.stray)) end
  expire(KEYS[3], key, KEYS[8 + lane * 2], ARGV[a + 5], ARGV[a + 1], ARGV[a + 2], late)
  for _, job in ipairs(late) do
    expired[#expired + 1] = job[1]
    expired[#expired + 1] = ARGV[a + 5]
  end
  first(KEYS[7], ARGV[a], key)
end
tally(KEYS[8])
touch(KEYS[6], ARGV[5])
keep(KEYS[1], ARGV[1], table.concat(ids, ' ') .. '|' .. table.concat(expired, ' '))
return reply()
