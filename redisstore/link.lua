-- link: children of jobs of this partition, or that they are no longer; and jobs of workflows of this partition. Moves no
-- job. Sent twice, it says the same.
-- KEYS  1 spec, 2 meta, 3 edges, 4 kids, 5 outbox
-- ARGV  1 'link', 'expect' (the parent need not exist yet), 'unlink'; 'enlist', 'delist': the parents are workflows and the
--       children their jobs; then for each edge: parent, child
-- Reply {'ok', for each edge the parent's state, 'gone' if it does not exist: then link did nothing for it, the peer of its
--       last run or '', ...}
local what = ARGV[1]
local parents, seen, peers = {}, {}, {}
for i = 2, #ARGV, 2 do
  if not seen[ARGV[i]] then
    seen[ARGV[i]] = true
    parents[#parents + 1] = ARGV[i]
  end
end
local specs, metas = redis.call('HMGET', KEYS[1], unpack(parents)), redis.call('HMGET', KEYS[2], unpack(parents))
local states = {}
for j, id in ipairs(parents) do
  local m, why
  if metas[j] then m, why = read(metas[j]) end
  peers[id] = m and m.peer or ''
  if not specs[j] and not metas[j] then
    states[id] = 'gone'
  elseif not metas[j] then
    states[id] = 'scheduled'
  else
    states[id] = m and m.state or why == 'newer' and 'running' or 'failed'
    if m and m.state == 'skipped' and m.reason == 'choice' then states[id] = 'unchosen' end
  end
end
typed({KEYS[4]}, {KEYS[3], KEYS[5]})
local listed = what == 'enlist' or what == 'delist'
local reply = {'ok'}
for i = 2, #ARGV, 2 do
  local parent, family, mark = ARGV[i], ARGV[i], '|'
  if listed then family, mark = parent .. '#', '#' end
  local edge = parent .. mark .. ARGV[i + 1]
  reply[#reply + 1] = states[parent]
  reply[#reply + 1] = peers[parent]
  if what == 'unlink' or what == 'delist' then
    redis.call('ZREM', KEYS[3], edge)
    if childless(KEYS[3], parent, mark) then
      redis.call('HDEL', KEYS[4], family)
      redis.call('ZREM', KEYS[5], family)
    end
  elseif states[parent] ~= 'gone' or what ~= 'link' then
    redis.call('ZADD', KEYS[3], 0, edge)
    redis.call('HSETNX', KEYS[4], family, int(now_us) .. '|')
  end
end
return reply
