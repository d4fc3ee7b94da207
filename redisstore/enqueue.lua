-- enqueue: nothing -> scheduled.
-- KEYS  1 call, 2 spec, 3 meta, 4 lanes, then the lanes
-- ARGV  1 call number, 2 number of lanes, their names,
--       then groups of jobs with the same lane, due time and overrides, each: lane (its place), due ('@' ms, or '+' ms
--       from now), overrides ('' or 'weight|max_reruns|size', each may be empty), number of jobs, their ids and specs
-- Reply {'ok', wake 0 or 1, 'place:state ...' of the jobs that exist already}, {'superseded'}
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
if answer then
  local wake, existing = answer:match('^(%d) (.*)$')
  return {'ok', tonumber(wake), existing}
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
i = begin
while i < #ARGV do
  local lane, due, override, last = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], i + 3 + 2 * ARGV[i + 3]
  if due:sub(1, 1) == '@' then due = tonumber(due:sub(2)) else due = now + due:sub(2) end
  local score, queue = int(due), queues[lane]
  if not queue then
    queue = {n = 0}
    queues[lane] = queue
  end
  for a = i + 4, last, 2 do
    place = place + 1
    local id = ARGV[a]
    if had[place] or seen[id] then
      local state = 'scheduled'
      if had[place] then
        metas = metas or redis.call('HMGET', KEYS[3], unpack(ids))
        local m = metas[place] and read(metas[place])
        state = m and m.state or state
      end
      existing[#existing + 1] = place .. ':' .. state
    else
      seen[id] = true
      accepted = accepted + 2
      specs[accepted - 1] = id
      specs[accepted] = ARGV[a + 1] .. stamp
      queue[queue.n + 1] = score
      queue[queue.n + 2] = id
      queue.n = queue.n + 2
      if not heads[lane] or due < heads[lane] then heads[lane] = due end
      if override ~= '' then
        -- The lane's name without its last part, which says whether its jobs have been run.
        local m = fresh(ARGV[2 + lane]:match('^(.*):'), score)
        m.weight, m.max_reruns, m.size = override:match('^(.*)|(.*)|(.*)$')
        overrides[#overrides + 1] = id
        overrides[#overrides + 1] = write(m)
      end
    end
  end
  i = last + 1
end

local queued = {KEYS[4]}
for lane in pairs(heads) do queued[#queued + 1] = KEYS[4 + lane] end
typed({KEYS[3]}, queued)
local wake = 0
if accepted > 0 then redis.call('HSET', KEYS[2], unpack(specs)) end
if #overrides > 0 then redis.call('HSET', KEYS[3], unpack(overrides)) end
for lane, head in pairs(heads) do
  redis.call('ZADD', KEYS[4 + lane], unpack(queues[lane]))
  wake = math.max(wake, redis.call('ZADD', KEYS[4], 'LT', 'CH', int(head), ARGV[2 + lane]))
end
answer = table.concat(existing, ' ')
keep(KEYS[1], ARGV[1], wake .. ' ' .. answer)
return {'ok', wake, answer}
