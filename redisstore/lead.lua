-- lead: takes, renews or gives up the lease for chores. Moves no job.
-- KEYS  1 leader, 2 term
-- ARGV  1 peer, 2 lease (ms), 3 'bid' or 'resign'
-- Reply {peer that leads or '', its term}
local held = redis.call('GET', KEYS[1])
local leader, term, lease
if held then leader, term, lease = held:match('^(.+)|(%d+)|(%d+)$') end
-- What no call has written, or would never end, is nobody's lease.
if leader and (#term > 16 or #lease > 13 or redis.call('PTTL', KEYS[1]) < 0) then leader, term = nil, nil end
if ARGV[3] == 'resign' then
  if leader ~= ARGV[1] then return {leader or '', term or '0'} end
  redis.call('DEL', KEYS[1])
  return {'', term}
end
local last = term_of(redis.call('GET', KEYS[2]))
if leader == ARGV[1] then
  if last < tonumber(term) then redis.call('SET', KEYS[2], term) end
  redis.call('SET', KEYS[1], ARGV[1] .. '|' .. term .. '|' .. ARGV[2], 'PX', ARGV[2])
  return {leader, term}
end
if leader then
  -- A server clock that was set back stretches a lease; no lease may be longer than it was taken for.
  if redis.call('PTTL', KEYS[1]) > tonumber(lease) then redis.call('PEXPIRE', KEYS[1], lease) end
  return {leader, term}
end
-- By the clock, so that none returns when the last one is forgotten or can't be read.
term = int(math.max(now, last + 1))
-- What can't be read is nobody's lease.
if held then redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[2], term)
redis.call('SET', KEYS[1], ARGV[1] .. '|' .. term .. '|' .. ARGV[2], 'NX', 'PX', ARGV[2])
return {ARGV[1], term}
