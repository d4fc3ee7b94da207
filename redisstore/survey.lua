-- survey: what there is to do in some partitions. Moves no job; for the leader it is a sign of life in each, so that a
-- whole fleet's end is told from an outage.
-- KEYS  for each partition: beats, info, lanes, fires, outbox, blocked, gates
-- ARGV  1 length of a page of lanes, 2 the leader's term ('' for who does not lead), 3 its beat interval (ms),
--       4 how long peers may be silent after an outage (ms), 5 how many silent peers are named at most
-- Reply {'ok', now (µs), for each partition: {1 if a later leader was here, {silent peer, ...}, {lane, due, ...},
--       when the first schedule is due (ms) or '', 1 if children are to be released, 1 if a blocked job is too late or a
--       gate has not been opened in time}}
local reply = {'ok', int(now_us)}
for k = 1, #KEYS, 7 do
  local left, silent = 0, {}
  if ARGV[2] ~= '' then
    if deposed(KEYS[k + 1], ARGV[2]) then
      left = 1
    else
      local since = touch(KEYS[k + 1], ARGV[3])
      redis.call('HSET', KEYS[k + 1], 'term', ARGV[2], 'every', ARGV[3])
      if since <= now - ARGV[4] then
        silent = redis.call('ZRANGEBYSCORE', KEYS[k], '-inf', '(' .. int(now), 'LIMIT', 0, ARGV[5])
      end
    end
  end
  local fires = redis.call('ZRANGE', KEYS[k + 3], 0, 0, 'WITHSCORES')
  reply[#reply + 1] = {left, silent, redis.call('ZRANGE', KEYS[k + 2], 0, ARGV[1] - 1, 'WITHSCORES'),
    fires[2] and int(fires[2] + 0) or '', redis.call('ZCARD', KEYS[k + 4]) > 0 and 1 or 0,
    redis.call('ZCOUNT', KEYS[k + 5], '-inf', '(' .. int(now)) + redis.call('ZCOUNT', KEYS[k + 6], '-inf', int(now)) > 0 and 1 or 0}
end
return reply
