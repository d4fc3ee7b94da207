-- pause: a kind's jobs are left where they wait, or no longer. Moves no job. Sent twice, it says the same again.
-- KEYS  1 info
-- ARGV  1 kind, 2 'on' or 'off'
-- Reply {'ok'}
local kinds = {}
for kind in (redis.call('HGET', KEYS[1], 'paused') or ''):gmatch('%S+') do
  if kind ~= ARGV[1] then kinds[#kinds + 1] = kind end
end
if ARGV[2] == 'on' then kinds[#kinds + 1] = ARGV[1] end
if #kinds > 0 then
  redis.call('HSET', KEYS[1], 'paused', table.concat(kinds, ' '))
else
  redis.call('HDEL', KEYS[1], 'paused')
end
return {'ok'}
