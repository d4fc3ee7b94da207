-- beat: the peer is alive, and these runs are where they are. Moves no job.
-- KEYS  1 beats, 2 info, 3 run:<peer>, 4 progress, 5 meta
-- ARGV  1 peer, 2 beat interval (ms), 3 how long it may be silent (ms),
--       then for each run: id, epoch, progress ('' nothing new)
-- Reply {'ok', runs that the store says it holds, {id and epoch of each run that it does not hold ...}, {the same of each
--       whose job someone has cancelled ...}}
local ids = {}
for i = 4, #ARGV, 3 do ids[#ids + 1] = ARGV[i] end

local held, lost, cancelled, progress = redis.call('ZCARD', KEYS[3]), {}, {}, {}
if #ids > 0 then
  local epochs, metas = redis.call('ZMSCORE', KEYS[3], unpack(ids)), redis.call('HMGET', KEYS[5], unpack(ids))
  for j, id in ipairs(ids) do
    local i = 4 + (j - 1) * 3
    if tonumber(epochs[j] or nil) ~= tonumber(ARGV[i + 1]) then
      lost[#lost + 1] = id
      lost[#lost + 1] = ARGV[i + 1]
    else
      if ARGV[i + 2] ~= '' then
        progress[#progress + 1] = id
        progress[#progress + 1] = ARGV[i + 2]
      end
      -- The same as marked, without taking the record apart.
      if metas[j] and metas[j]:find('1|running|cancel|', 1, true) == 1 then
        cancelled[#cancelled + 1] = id
        cancelled[#cancelled + 1] = ARGV[i + 1]
      end
    end
  end
end

typed({KEYS[4]}, {KEYS[1]})
touch(KEYS[2], ARGV[2])
redis.call('ZADD', KEYS[1], int(now + ARGV[3]), ARGV[1])
if #progress > 0 then redis.call('HSET', KEYS[4], unpack(progress)) end
return {'ok', held, lost, cancelled}
