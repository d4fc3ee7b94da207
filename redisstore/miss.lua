-- miss: scheduled and past its grace -> missed if it never ran, else failed.
-- KEYS  1 call, 2 meta, 3 info, 4 lanes, 5 counts, 6 the lane, 7 the set of ended jobs, 8 kids, 9 outbox
-- ARGV  1 call number, 2 term, 3 jobs at most, 4 name of the lane, 5 base name, 6 'kind:priority', 7 grace (ms),
--       8 state that the jobs end in
-- Reply {'ok', 1 if there may be more, id, state, base name, ...}, {'deposed'}, {'superseded'}
if deposed(KEYS[3], ARGV[2]) then return {'deposed'} end
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end

local reply = {'ok', 0}
if answer then
  for word in answer:gmatch('%S+') do reply[#reply + 1] = word end
  return reply
end

local limit = tonumber(ARGV[3])
local before = '(' .. int(now - ARGV[7])
local late, from, more = {}, 0, 0
while from < 1000 do
  local found = redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', before, 'WITHSCORES', 'LIMIT', from, limit)
  if #found == 0 then break end
  local ids = {}
  for j = 1, #found, 2 do ids[#ids + 1] = found[j] end
  local metas = redis.call('HMGET', KEYS[2], unpack(ids))
  for j, id in ipairs(ids) do
    local m, why
    if metas[j] then m, why = read(metas[j]) end
    -- What a newer program wrote is left alone, and so is a job that its record places elsewhere; what is corrupt
    -- ends here as well.
    if why ~= 'newer' and (not m or m.state == 'scheduled') and #late < limit then
      late[#late + 1] = {id, plain(found[j * 2]), metas[j]}
    end
  end
  if #late >= limit then
    more = 1
    break
  end
  from = from + #ids
end

typed({KEYS[5], KEYS[8]}, {KEYS[4], KEYS[7], KEYS[9]})
if #late > 0 then
  expire(KEYS[2], KEYS[6], KEYS[7], ARGV[8], ARGV[5], ARGV[6], late)
  tally(KEYS[5])
  local ids = {}
  for j, job in ipairs(late) do ids[j] = job[1] end
  bequeath(ids)
end
-- A head that was left alone must not keep the lane in front of all others for ever.
first(KEYS[4], ARGV[4], KEYS[6])
redis.call('HSET', KEYS[3], 'term', ARGV[2])
local words = {}
for _, job in ipairs(late) do
  words[#words + 1] = job[1]
  words[#words + 1] = ARGV[8]
  words[#words + 1] = ARGV[5]
end
keep(KEYS[1], ARGV[1], table.concat(words, ' '))
reply[2] = more
for _, word in ipairs(words) do reply[#reply + 1] = word end
return reply
