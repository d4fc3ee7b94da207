-- drain: a peer is to claim nothing more, or again; it learns so when it next shows itself. Moves no job. Sent twice, it says
-- the same again.
-- KEYS  1 peers, 2 drained
-- ARGV  1 peer, 2 'on' or 'off'
-- Reply {'ok'}, {'none'} if there is no such peer
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {'none'} end
if ARGV[2] == 'on' then
  redis.call('SADD', KEYS[2], ARGV[1])
else
  redis.call('SREM', KEYS[2], ARGV[1])
end
return {'ok'}
