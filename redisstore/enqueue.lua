-- enqueue: nothing -> scheduled, or blocked if it has parents. A job that is to replace the one that holds its unique slot: that one, blocked or
-- scheduled and not started -> cancelled.
-- A workflow that was never wholly submitted: cancelled -> blocked.
-- KEYS  1 call, 2 spec, 3 meta, 4 lanes, 5 unique, 6 counts, 7 blocked, 8 needs, then the lanes, then the sets of cancelled
--       jobs, then kids, outbox
-- ARGV  1 call number, 2 number of lanes, their names,
--       then groups of jobs with the same lane, due time and overrides, each: lane (its place), due ('@' ms, or '+' ms
--       from now), overrides ('' or 'weight|max_reruns|size|unique|replace|blocked', each may be empty), number of jobs,
--       their ids and specs; unique: as in the record; replace: the set of cancelled jobs (its place) and, if one was
--       found to hold the slot, its lane (its place) and id, separated by commas; blocked: when it is due at the
--       earliest (ms), 0 if only its parents say, negative to be put before others; then, after a comma, the number of who has
--       told what it waits for, whose gate must be closed
-- Reply {'ok', news, 'place:state:id ...' of the jobs that exist already, id '' if it is the same}, {'superseded'}, {'full'}
--       news: the names of the lanes that have work sooner than before, each with a + if that is not due yet
--       state moved: the slot is not held by whom replace says, or another has told what it waits for, or its gate was
--       voided; nothing was done for this job
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
if full and not answer then -- see remembered in scripts.go
  answer = 'full'
  keep(KEYS[1], ARGV[1], answer)
end
if answer == 'full' then return {'full'} end
if answer then
  return {'ok', answer:match('^(.*)|(.*)$')}
end

local begin = 3 + tonumber(ARGV[2])
local ids, n = {}, 0
local i = begin
while i < #ARGV do
  local last = i + 3 + 2 * ARGV[i + 3]
  for a = i + 4, last, 2 do
    n = n + 1
    ids[n] = ARGV[a]
  end
  i = last + 1
end
local had = redis.call('HMGET', KEYS[2], unpack(ids))

local stamp = string.format('%013.0f', now)
local specs, accepted, place = {}, 0, 0
local existing, overrides, seen, metas = {}, {}, {}, nil
local queues, heads = {}, {}

-- Slots taken here: slot -> the job. What those say that are replaced, in this call or before it.
local slots, gone, uneven = {}, {}, {}
-- Those that wait for their parents, and until when they must start.
local blocked = {}
-- Workflows that were never wholly submitted, and are anew.
local again = {}

-- admit returns the id and state of the job because of which a new one may not have the slot; nothing if it may.
local function admit(slot, replace)
  local mine = slots[slot]
  local set, lane, known = replace:match('^(%d+),?(%d*),?(.*)$')
  if mine then
    if not set then return mine.id, 'scheduled' end
    local queue = mine.m.state == 'blocked' and blocked or queues[mine.lane]
    for k = 2, #queue, 2 do
      if queue[k] == mine.id then
        table.remove(queue, k)
        table.remove(queue, k - 1)
        if queue.n then queue.n = queue.n - 2 end
        break
      end
    end
    uneven[mine.lane] = true
    gone[#gone + 1] = {id = mine.id, m = mine.m, set = tonumber(set)}
    return
  end
  local id, state, m, started = holder(KEYS[5], KEYS[2], KEYS[3], slot)
  if not id then return end
  if not set or started or not m then return id, state end
  if id ~= known or waits(m) ~= ARGV[2 + lane] then return '', 'moved' end
  uneven[tonumber(lane)] = true
  gone[#gone + 1] = {id = id, m = m, set = tonumber(set), lane = tonumber(lane), state = state}
end

-- exists notes that the job at this place is there already, and its state.
local function exists(place)
  local state = 'scheduled'
  if had[place] then
    metas = metas or redis.call('HMGET', KEYS[3], unpack(ids))
    local m = metas[place] and read(metas[place])
    state = m and m.state or state
  end
  existing[#existing + 1] = place .. ':' .. state .. ':'
end

i = begin
while i < #ARGV do
  local lane, due, override, last = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], i + 3 + 2 * ARGV[i + 3]
  if due:sub(1, 1) == '@' then due = tonumber(due:sub(2)) else due = now + due:sub(2) end
  local score, queue = int(due), queues[lane]
  if not queue then
    queue = {n = 0}
    queues[lane] = queue
  end
  if override == '' then
    -- Most jobs: nothing but the lane is to be known of them.
    local m, before = queue.n, accepted
    for a = i + 4, last, 2 do
      place = place + 1
      local id = ARGV[a]
      if had[place] or seen[id] then
        exists(place)
      else
        seen[id] = true
        accepted = accepted + 2
        specs[accepted - 1], specs[accepted] = id, ARGV[a + 1] .. stamp
        m = m + 2
        queue[m - 1], queue[m] = score, id
      end
    end
    queue.n = m
    if accepted > before and (not heads[lane] or due < heads[lane]) then heads[lane] = due end
  else
    local weight, max_reruns, size, unique, replace, waits_for, teller =
      override:match('^(.-)|(.-)|(.-)|(.-)|(.-)|([^,]*),?(.*)$')
    local till, lasts, slot
    if unique ~= '' then till, lasts, slot = slot_of(unique) end
    for a = i + 4, last, 2 do
      place = place + 1
      local id, holds, state, anew = ARGV[a], nil, nil, nil
      if had[place] and waits_for ~= '' and replace ~= '' then
        metas = metas or redis.call('HMGET', KEYS[3], unpack(ids))
        if void(metas[place]) then
          had[place] = false
          anew = {id = id, set = tonumber(replace), class = class_of(read(metas[place]).lane)}
        end
      end
      if teller ~= '' and not had[place] and not seen[id] then
        -- Whoever told last may enqueue it.
        local gate, total = redis.call('HGET', KEYS[8], id .. '|'), totals(redis.call('HGET', KEYS[8], id .. '||') or '')
        if not gate or total.by ~= teller then holds, state = '', 'moved' end
      end
      if slot and not holds and not had[place] and not seen[id] then holds, state = admit(slot, replace) end
      if had[place] or seen[id] then
        exists(place)
      elseif holds then
        existing[#existing + 1] = place .. ':' .. state .. ':' .. holds
      else
        seen[id] = true
        again[#again + 1] = anew
        accepted = accepted + 2
        specs[accepted - 1] = id
        specs[accepted] = ARGV[a + 1] .. stamp
        if waits_for == '' then
          queue[queue.n + 1] = score
          queue[queue.n + 2] = id
          queue.n = queue.n + 2
          if not heads[lane] or due < heads[lane] then heads[lane] = due end
        end
        -- The lane's name without its last part, which says whether its jobs have been run.
        local m = fresh(ARGV[2 + lane]:match('^(.*):'), score)
        m.weight, m.max_reruns, m.size, m.unique = weight, max_reruns, size, unique
        if waits_for ~= '' then
          m.state, m.due = 'blocked', waits_for
          blocked[#blocked + 1] = start_by(m)
          blocked[#blocked + 1] = id
          add('blocked', class_of(m.lane), 1)
        end
        if slot then slots[slot] = {id = id, m = m, lane = lane, value = take(id, till, lasts, '0')} end
        overrides[#overrides + 1] = id
        overrides[#overrides + 1] = write(m)
      end
    end
  end
  i = last + 1
end

for _, job in ipairs(gone) do
  if job.m.state == 'blocked' then add('blocked', class_of(job.m.lane), -1) end
  job.m.state, job.m.reason, job.m.ended = 'cancelled', 'replaced', int(now)
  overrides[#overrides + 1] = job.id
  overrides[#overrides + 1] = write(job.m)
  add('cancelled', class_of(job.m.lane), 1)
end

local news, sets = {}, 8 + tonumber(ARGV[2])
local hashes, zsets = {KEYS[3]}, {KEYS[4]}
for lane in pairs(heads) do zsets[#zsets + 1] = KEYS[8 + lane] end
if #overrides > 0 then
  hashes = {KEYS[3], KEYS[5], KEYS[6], KEYS[#KEYS - 1]}
  zsets[#zsets + 1] = KEYS[7]
  zsets[#zsets + 1] = KEYS[#KEYS]
end
for _, job in ipairs(gone) do zsets[#zsets + 1] = KEYS[sets + job.set] end
for _, job in ipairs(again) do zsets[#zsets + 1] = KEYS[sets + job.set] end
typed(hashes, zsets)
if accepted > 0 then redis.call('HSET', KEYS[2], unpack(specs)) end
if #overrides > 0 then redis.call('HSET', KEYS[3], unpack(overrides)) end
if #blocked > 0 then redis.call('ZADD', KEYS[7], unpack(blocked)) end
for slot, job in pairs(slots) do redis.call('HSET', KEYS[5], slot, job.value) end
for _, job in ipairs(again) do
  redis.call('ZREM', KEYS[sets + job.set], job.id)
  add('cancelled', job.class, -1)
end
for _, job in ipairs(gone) do
  if job.lane then redis.call('ZREM', KEYS[8 + job.lane], job.id) end
  if job.state == 'blocked' then redis.call('ZREM', KEYS[7], job.id) end
  redis.call('ZADD', KEYS[sets + job.set], int(now), job.id)
end
for lane, head in pairs(heads) do
  if queues[lane].n > 0 then
    redis.call('ZADD', KEYS[8 + lane], unpack(queues[lane]))
    if redis.call('ZADD', KEYS[4], 'LT', 'CH', int(head), ARGV[2 + lane]) == 1 then
      news[#news + 1] = ARGV[2 + lane] .. (head > now and '+' or '')
    end
  end
end
for lane in pairs(uneven) do first(KEYS[4], ARGV[2 + lane], KEYS[8 + lane]) end
tally(KEYS[6])
local out = {}
for j, job in ipairs(gone) do out[j] = job.id end
bequeath(out)
news, existing = table.concat(news, ' '), table.concat(existing, ' ')
keep(KEYS[1], ARGV[1], news .. '|' .. existing)
return {'ok', news, existing}
