-- recount: puts the counters of one set of ended jobs right, or those of running or of blocked jobs. Moves no job.
-- KEYS  1 call, 2 info, 3 meta, 4 counts, 5 beats, then the set of ended jobs, or all run:<peer>, or blocked
-- ARGV  1 call number, 2 term (0: an operator's), 3 state, 4 jobs to look at, at most, 5 kind (ended jobs only),
--       then, unless they have ended, the counters of such jobs that there were ('kind:priority'), '', and the peers, in the order of KEYS
-- Reply {'ok', counted before, jobs there are}: the same number twice if all is well; {'moved'} if a peer was not named;
--       {'deposed'}, {'superseded'}
if ARGV[2] ~= '0' and deposed(KEYS[2], ARGV[2]) then return {'deposed'} end
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
if answer then
  local before, after = answer:match('^(%-?%d+) (%-?%d+)$')
  return {'ok', tonumber(before), tonumber(after)}
end

local state, most, classes, ids, jobs = ARGV[3], tonumber(ARGV[4]), {}, {}, 0
local lives = state == 'running' or state == 'blocked'
if lives then
  local named, i = {}, 6
  while ARGV[i] ~= '' do
    classes[#classes + 1] = ARGV[i]
    i = i + 1
  end
  for j = i + 1, #ARGV do named[ARGV[j]] = true end
  -- Whoever runs something here is among those who beat.
  for _, peer in ipairs(state == 'running' and redis.call('ZRANGE', KEYS[5], 0, -1) or {}) do
    if not named[peer] then return {'moved'} end
  end
else
  for priority = 1, 9 do classes[priority] = ARGV[5] .. ':' .. priority end
end
for k = 6, #KEYS do jobs = jobs + redis.call('ZCARD', KEYS[k]) end

local had, sum, broken = {}, 0, false
-- consult reads counters; at most some thousands, or unpack would fail.
local function consult(list)
  if #list == 0 then return end
  local fields = {}
  for j, class in ipairs(list) do fields[j] = state .. ':' .. class end
  local values = redis.call('HMGET', KEYS[4], unpack(fields))
  for j, class in ipairs(list) do
    local n = tonumber(values[j] or '0')
    broken = broken or not n or n < 0 or n ~= math.floor(n)
    had[class] = n or 0
    sum = sum + had[class]
  end
end
consult(classes)
-- A sum that agrees is believed, where looking at each job would cost.
if not broken and sum == jobs and not lives then return {'ok', jobs, jobs} end

local now_has = {}
if jobs <= most then
  for k = 6, #KEYS do
    for _, id in ipairs(redis.call('ZRANGE', KEYS[k], 0, -1)) do ids[#ids + 1] = id end
  end
  local metas = #ids > 0 and redis.call('HMGET', KEYS[3], unpack(ids)) or {}
  for j in ipairs(ids) do
    local was, class
    if metas[j] then was, class = metas[j]:match('^1|([^|]*)|[^|]*|[^|]*|[^|]*|[^|]*|([^:|]*:%d):') end
    if was ~= state then
      -- Its record is to be mended first; then it is counted.
      if lives then return {'ok', sum, sum} end
      class = ARGV[5] .. ':2'
    end
    now_has[class] = (now_has[class] or 0) + 1
  end
  if lives then
    -- A class gets its counter with the first of its jobs to run, maybe since Go read which there are.
    local late = {}
    for class in pairs(now_has) do
      if not had[class] then late[#late + 1] = class end
    end
    consult(late)
  end
elseif lives then
  return {'ok', sum, sum}
else
  -- Too many to look at each: what is too much or too little goes to the largest.
  local off = jobs
  for priority = 1, 9 do
    local class = classes[priority]
    now_has[class] = math.min(math.max(math.floor(had[class]), 0), off)
    off = off - now_has[class]
  end
  if off > 0 then
    local largest = classes[2]
    for _, class in ipairs(classes) do
      if now_has[class] > now_has[largest] then largest = class end
    end
    now_has[largest] = now_has[largest] + off
  end
end
local set, gone = {}, {}
for _, class in ipairs(classes) do
  if not now_has[class] or now_has[class] == 0 then
    if had[class] ~= 0 or broken then gone[#gone + 1] = state .. ':' .. class end
  end
end
for class, n in pairs(now_has) do
  if n > 0 and (had[class] ~= n or broken) then
    set[#set + 1] = state .. ':' .. class
    set[#set + 1] = int(n)
  end
end
if #set + #gone == 0 then return {'ok', jobs, jobs} end
if #set > 0 then redis.call('HSET', KEYS[4], unpack(set)) end
if #gone > 0 then redis.call('HDEL', KEYS[4], unpack(gone)) end
-- The sums may agree although the counters did not.
if sum == jobs then sum = -1 end
keep(KEYS[1], ARGV[1], int(sum) .. ' ' .. int(jobs))
return {'ok', tonumber(int(sum)), jobs}
