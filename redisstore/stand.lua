-- stand: a peer that has tokens to spare stands among the idle, or no longer does. Moves no job.
-- KEYS  1 idle (score: 9 less the level, plus the load), 2 handles, 3 unheard, 4 room
-- ARGV  1 peer, 2 'up' or 'down', 3 its load (0 to below 1), 4 the kinds that it handles, kind=weight between spaces, or
--       '' as before, 5 the least urgent priority for which it has tokens, 6 what a job of each priority may weigh,
--       each followed by a space
-- Reply {'ok', partitions that have work for it of which nobody was told}, {'kinds'}: say the kinds
if ARGV[2] == 'down' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[4], ARGV[1])
  return {'ok', ''}
end
local kinds = ARGV[4]
if kinds == '' then
  local rest, n = (redis.call('HGET', KEYS[2], ARGV[1]) or ''):gsub('[^ =]+=%d+ ', '')
  if rest ~= ' ' or n == 0 then return {'kinds'} end -- or nobody would wake it
end

if kinds ~= '' then redis.call('HSET', KEYS[2], ARGV[1], kinds) end
redis.call('ZADD', KEYS[1], 9 - ARGV[5] + ARGV[3], ARGV[1])
redis.call('HSET', KEYS[4], ARGV[1], ARGV[6])
if redis.call('EXISTS', KEYS[3]) == 0 then return {'ok', ''} end
if kinds == '' then kinds = redis.call('HGET', KEYS[2], ARGV[1]) end
local names = {}
for kind in kinds:gmatch('(%S+)=%d+') do names[#names + 1] = kind end
local found = {}
for i = 1, #names, 1000 do
  local last = math.min(i + 999, #names)
  for j, note in ipairs(redis.call('HMGET', KEYS[3], unpack(names, i, last))) do
    local name, kept = names[i + j - 1], {}
    for partition, priority in (note or ''):gmatch('(%d+)/(%d+)') do
      if tonumber(priority) <= tonumber(ARGV[5]) then
        found[#found + 1] = partition
      else
        kept[#kept + 1] = partition .. '/' .. priority .. ' '
      end
    end
    if #kept > 0 then
      redis.call('HSET', KEYS[3], name, ' ' .. table.concat(kept))
    elseif note then
      redis.call('HDEL', KEYS[3], name)
    end
  end
end
return {'ok', table.concat(found, ' ')}
