-- wake: tells one peer that a partition has work: for work that is due, the least loaded of the idle ones that handle
-- the kind; for work that is due later, the leader, who keeps the time. Moves no job. Best effort: sent twice, it may
-- tell two peers, and one of them finds nothing.
-- KEYS  1 idle, 2 handles, 3 unheard, 4 leader, 5 room
-- ARGV  1 partition, 2 kind, 3 'now' or 'later', 4 prefix of the peers' channels, 5 message,
--       6 1 if PUBLISH counts all who hear (a cluster's does not), 7 a peer that is not to be told, or '', 8 priority,
--       9 the least that the work weighs, 0: what the peer's kind does
-- Reply {'ok', the peer that was told, or '' if there is none}
local function tell(peer)
  return redis.call('PUBLISH', ARGV[4] .. peer, ARGV[5]) > 0 or ARGV[6] ~= '1'
end

if ARGV[3] == 'later' then
  local leader = (redis.call('GET', KEYS[4]) or ''):match('^(.*)|%d+|%d+$')
  if leader and tell(leader) then return {'ok', leader} end
  return {'ok', ''} -- whoever leads next looks everywhere
end

-- carries reports whether a peer with these kinds and this room can take the work.
local function carries(kinds, room)
  local _, at = (kinds or ''):find(' ' .. ARGV[2] .. '=', 1, true)
  if not at then return false end
  local weight = tonumber(ARGV[9])
  if weight == 0 then weight = tonumber(kinds:match('^%d+', at + 1)) or 1 end
  local priority = 0
  for tokens in (room or ''):gmatch('%d+') do
    priority = priority + 1
    if priority == tonumber(ARGV[8]) then return weight <= tonumber(tokens) end
  end
  return false
end

local from, page = 0, 8
while from < 1000 do
  local peers = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. int(10 - ARGV[8]), 'LIMIT', from, page)
  if #peers == 0 then break end
  local kinds, rooms = redis.call('HMGET', KEYS[2], unpack(peers)), redis.call('HMGET', KEYS[5], unpack(peers))
  for i, peer in ipairs(peers) do
    if peer ~= ARGV[7] and carries(kinds[i], rooms[i]) then
      redis.call('ZREM', KEYS[1], peer)
      redis.call('HDEL', KEYS[5], peer)
      if tell(peer) then return {'ok', peer} end
      from = from - 1 -- nobody listens there any more
    end
  end
  from, page = from + #peers, 100
end

-- The next peer that stands up with tokens for it is told by this note.
local note, place = redis.call('HGET', KEYS[3], ARGV[2]) or ' ', ARGV[1] .. '/' .. ARGV[8] .. ' '
if not note:find(' ' .. place, 1, true) then redis.call('HSET', KEYS[3], ARGV[2], note .. place) end
return {'ok', ''}
