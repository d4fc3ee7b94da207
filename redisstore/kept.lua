-- Settle and trim begin with this too: which ended jobs go, and how.

-- outlived looks for the oldest of a set of ended jobs: those that ended more than age ms ago (-1: no limit), and those
-- that are too many beside the added ones that are about to join (count -1: no limit). It gives at most `most`, as
-- {ids, how many of each 'kind:priority', how often each ran that has a history, and its unique slot, by its place, and
-- whether all are the head of the set}, or nil, and whether there may be more.
-- A little above the count nothing goes yet, so that not each call pays for one.
-- What has children stays until they are let go of, and a workflow until its list of jobs is; held gathers those.
local held = {}
local parents
-- has_parents tells whether some job here has children.
local function has_parents()
  if parents == nil then parents = redis.call('HLEN', KEYS[#KEYS - 1]) > 0 end
  return parents
end
local function outlived(set, meta, state, age, count, added, most)
  local over = count >= 0 and redis.call('ZCARD', set) + added - count or 0
  if added > 0 and over * 100 <= count then over = 0 end
  local before = age >= 0 and now - age or -1
  local oldest = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
  if not oldest[2] then return nil, false end
  -- If the first of the set is not too old, none is, and nobody need read when they ended.
  local aged = oldest[2] + 0 < before
  if over <= 0 and not aged then return nil, false end
  local some = has_parents()
  local ids, from, full = {}, 0, false
  -- Past those that are held, not for ever; and not where jobs are settled, each call of which would pay for it: the
  -- leader's chore does that.
  repeat
    local page = {}
    if aged then
      local found = redis.call('ZRANGE', set, from, from + most - 1, 'WITHSCORES')
      for j = 1, #found / 2 do
        if from + j > over and found[j * 2] + 0 >= before then break end
        page[j] = found[j * 2 - 1]
      end
    elseif from < over then
      page = redis.call('ZRANGE', set, from, math.min(from + most, over) - 1)
    end
    full = #page == most
    local had = some and #page > 0 and redis.call('HMGET', KEYS[#KEYS - 1], unpack(page)) or {}
    local jobs = {}
    if some and #page > 0 and set:find(':done:[^:]*:workflow/') then
      local lists = {}
      for j, id in ipairs(page) do lists[j] = id .. '#' end
      jobs = redis.call('HMGET', KEYS[#KEYS - 1], unpack(lists))
    end
    if some then
      for j, id in ipairs(page) do
        if had[j] or jobs[j] then held[#held + 1] = id else ids[#ids + 1] = id end
      end
    else
      ids = page
    end
    from = from + #page
  until #ids > 0 or not full or added > 0 or from >= 2000
  local head = from == #ids
  if #ids == 0 then return nil, false end
  local metas = redis.call('HMGET', meta, unpack(ids))
  local kept, classes, runs, slots, n, clean = {}, {}, {}, {}, 0, state == 'succeeded'
  local pattern = '^1|' .. state .. '|[^|]*|[^|]*|[^|]*|[^|]*|([^:|]*:%d):[^|]*|[^|]*|[^|]*|%d+|%d+|(%d+)|[^|]*|[^|]*|[^|]*|([^|]*)|'
  -- A record does not name its job: those that were due, claimed and settled together have the same.
  local last, class, ran, unique
  for j, id in ipairs(ids) do
    -- Only what its record calls ended in this state goes. What can't be read is for repair to decide.
    local record = metas[j]
    if record then
      if record ~= last then
        last = record
        class, ran, unique = record:match(pattern)
      end
      if class then
        n = n + 1
        kept[n] = id
        classes[class] = (classes[class] or 0) + 1
        -- A run that succeeded at once stands in the record alone.
        if not clean or ran ~= '1' then runs[n] = tonumber(ran) end
        if unique ~= '' then slots[n] = select(3, slot_of(unique)) end
      end
    end
  end
  if n == 0 then return nil, false end
  return {ids = kept, classes = classes, runs = runs, slots = slots, head = head and n == #ids}, full
end

-- forget lets the jobs go, whole. They leave their set first: what is left of a job then is in no index, and mended.
local function forget(set, state, gone, spec, meta, result, errors, unique)
  if gone.head then
    -- The cheaper way to say it, as long as nothing has joined the set since.
    redis.call('ZREMRANGEBYRANK', set, 0, #gone.ids - 1)
  else
    redis.call('ZREM', set, unpack(gone.ids))
  end
  redis.call('HDEL', meta, unpack(gone.ids))
  redis.call('HDEL', spec, unpack(gone.ids))
  if redis.call('EXISTS', result) == 1 then redis.call('HDEL', result, unpack(gone.ids)) end
  for j, slot in pairs(gone.slots) do
    -- Another job may have it by now.
    if (redis.call('HGET', unique, slot) or ''):match('^([^|]*)|') == gone.ids[j] then redis.call('HDEL', unique, slot) end
  end
  -- Progress went with the end of each run.
  local fields = {}
  for j, runs in pairs(gone.runs) do
    -- The ring has a place for each of the last ten runs.
    for place = 0, math.min(runs, 10) - 1 do fields[#fields + 1] = place .. '|' .. gone.ids[j] end
  end
  for class, n in pairs(gone.classes) do add(state, class, -n) end
  for j = 1, #fields, 1000 do redis.call('HDEL', errors, unpack(fields, j, math.min(j + 999, #fields))) end
end
