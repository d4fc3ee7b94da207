-- enqueue: nothing -> scheduled.
-- KEYS  1 call, 2 spec, 3 meta, 4 lanes, then the lanes
-- ARGV  1 call number, 2 number of lanes, their names,
--       then for each job: id, lane (its place among the lanes), due ('@' ms, or '+' ms from now),
--       overrides ('' or 'weight|max_reruns|size', each may be empty), spec
-- Reply {'ok', wake 0 or 1, 'place:state ...' of the jobs that exist already}, {'superseded'}
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
if answer then return {'ok', 0, answer} end

local lanes = tonumber(ARGV[2])
local stamp = string.format('%013.0f', now)
local ids = {}
for i = 3 + lanes, #ARGV, 5 do ids[#ids + 1] = ARGV[i] end
local had = redis.call('HMGET', KEYS[2], unpack(ids))
local metas

local existing, specs, overrides, seen = {}, {}, {}, {}
local queues, heads = {}, {}
for j, id in ipairs(ids) do
  if had[j] or seen[id] then
    local state = 'scheduled'
    if had[j] then
      metas = metas or redis.call('HMGET', KEYS[3], unpack(ids))
      local m = metas[j] and read(metas[j])
      state = m and m.state or state
    end
    existing[#existing + 1] = j .. ':' .. state
  else
    seen[id] = true
    local i = 3 + lanes + (j - 1) * 5
    local lane, due = tonumber(ARGV[i + 1]), ARGV[i + 2]
    if due:sub(1, 1) == '@' then due = tonumber(due:sub(2)) else due = now + due:sub(2) end
    specs[#specs + 1] = id
    specs[#specs + 1] = ARGV[i + 4] .. stamp
    if ARGV[i + 3] ~= '' then
      -- The lane's name without its last part, which says whether its jobs have been run.
      local m = fresh(ARGV[2 + lane]:match('^(.*):'), int(due))
      m.weight, m.max_reruns, m.size = ARGV[i + 3]:match('^(.*)|(.*)|(.*)$')
      overrides[#overrides + 1] = id
      overrides[#overrides + 1] = write(m)
    end
    local queue = queues[lane]
    if not queue then
      queue = {}
      queues[lane] = queue
    end
    queue[#queue + 1] = int(due)
    queue[#queue + 1] = id
    if not heads[lane] or due < heads[lane] then heads[lane] = due end
  end
end

local wake = 0
if #specs > 0 then redis.call('HSET', KEYS[2], unpack(specs)) end
if #overrides > 0 then redis.call('HSET', KEYS[3], unpack(overrides)) end
for lane, queue in pairs(queues) do
  redis.call('ZADD', KEYS[4 + lane], unpack(queue))
  wake = math.max(wake, redis.call('ZADD', KEYS[4], 'LT', 'CH', int(heads[lane]), ARGV[2 + lane]))
end
answer = table.concat(existing, ' ')
keep(KEYS[1], ARGV[1], answer)
return {'ok', wake, answer}
