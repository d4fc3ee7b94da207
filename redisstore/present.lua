-- present: checks the namespace's layout, making it if there is none, and shows the peer to readers. Moves no job.
-- KEYS  1 layout, 2 peers, 3 seen, 4 drained, 5 idle, 6 handles, 7 room
-- ARGV  1 this program's version of the layout, 2 number of partitions if there is none yet,
--       3 peer ('' for none), 4 its record ('' takes it off the list)
-- Reply {layout, min_peer, partitions, '1' if the peer is to claim nothing, else '0'}
local layout = redis.call('HMGET', KEYS[1], 'layout', 'min_peer', 'partitions')
if not layout[1] then
  layout = {ARGV[1], ARGV[1], ARGV[2]}
  redis.call('HSET', KEYS[1], 'layout', ARGV[1], 'min_peer', ARGV[1], 'partitions', ARGV[2])
end
if ARGV[3] ~= '' and tonumber(layout[2]) and tonumber(layout[2]) <= tonumber(ARGV[1]) then
  if ARGV[4] == '' then
    redis.call('HDEL', KEYS[2], ARGV[3])
    redis.call('ZREM', KEYS[3], ARGV[3])
    redis.call('SREM', KEYS[4], ARGV[3])
    redis.call('ZREM', KEYS[5], ARGV[3])
    redis.call('HDEL', KEYS[6], ARGV[3])
    redis.call('HDEL', KEYS[7], ARGV[3])
  else
    redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
    redis.call('ZADD', KEYS[3], int(now), ARGV[3])
  end
  -- Whoever was not seen for a day is forgotten, a few at a time.
  local gone = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', int(now - 86400000), 'LIMIT', 0, 100)
  if #gone > 0 then
    redis.call('HDEL', KEYS[2], unpack(gone))
    redis.call('ZREM', KEYS[3], unpack(gone))
    redis.call('SREM', KEYS[4], unpack(gone))
    redis.call('ZREM', KEYS[5], unpack(gone))
    redis.call('HDEL', KEYS[6], unpack(gone))
    redis.call('HDEL', KEYS[7], unpack(gone))
  end
end
layout[4] = ARGV[3] ~= '' and tostring(redis.call('SISMEMBER', KEYS[4], ARGV[3])) or '0'
return layout
