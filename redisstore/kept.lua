-- Settle and trim begin with this too: which ended jobs go, and how.

-- outlived looks for the oldest of a set of ended jobs: those that ended more than age ms ago (-1: no limit), and those
-- that are too many beside the added ones that are about to join (count -1: no limit). It gives at most `most`, as
-- {ids, 'kind:priority' of each, how often each ran if it has errors or false}, or nil, and whether there may be more.
-- A little above the count nothing goes yet, so that not each call pays for one.
local function outlived(set, meta, state, age, count, added, most)
  local over = count >= 0 and redis.call('ZCARD', set) + added - count or 0
  if added > 0 and over * 100 <= count then over = 0 end
  local before = age >= 0 and now - age or -1
  if over <= 0 then
    local head = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
    if not head[2] or head[2] + 0 >= before then return nil, false end
  end
  local found = redis.call('ZRANGE', set, 0, most - 1, 'WITHSCORES')
  local ids = {}
  for j = 1, #found / 2 do
    if j > over and found[j * 2] + 0 >= before then break end
    ids[j] = found[j * 2 - 1]
  end
  if #ids == 0 then return nil, false end
  local metas = redis.call('HMGET', meta, unpack(ids))
  local gone = {ids = {}, classes = {}, runs = {}}
  local n = 0
  for j, id in ipairs(ids) do
    -- Only what its record calls ended in this state goes. What can't be read is for repair to decide.
    local was, class, fails, reruns, runs
    if metas[j] then
      was, class, fails, reruns, runs = metas[j]:match('^1|([^|]*)|[^|]*|[^|]*|[^|]*|[^|]*|([^:|]*:%d):[^|]*|[^|]*|[^|]*|(%d+)|(%d+)|(%d+)|')
    end
    -- A place for what keeps a job although its time is over.
    if was == state then
      n = n + 1
      gone.ids[n], gone.classes[n] = id, class
      gone.runs[n] = not (state == 'succeeded' and fails == '0' and reruns == '0') and tonumber(runs)
    end
  end
  -- A place for what the record names elsewhere, and what must go with it.
  if n == 0 then return nil, false end
  return gone, #ids == most
end

-- forget lets the jobs go, whole. They leave their set first: what is left of a job then is in no index, and mended.
local function forget(set, state, gone, spec, meta, result, errors)
  redis.call('ZREM', set, unpack(gone.ids))
  redis.call('HDEL', meta, unpack(gone.ids))
  redis.call('HDEL', spec, unpack(gone.ids))
  if redis.call('EXISTS', result) == 1 then redis.call('HDEL', result, unpack(gone.ids)) end
  -- Progress went with the end of each run.
  local fields = {}
  for j, id in ipairs(gone.ids) do
    -- The ring has a place for each of the last ten runs.
    for place = 0, math.min(gone.runs[j] or 0, 10) - 1 do fields[#fields + 1] = place .. '|' .. id end
    add(state, gone.classes[j], -1)
  end
  for j = 1, #fields, 1000 do redis.call('HDEL', errors, unpack(fields, j, math.min(j + 999, #fields))) end
end
