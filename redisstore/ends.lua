-- ends: how parents stand, and whether their children are yet to be told. Moves no job.
-- KEYS  1 spec, 2 meta, 3 result, 4 edges, 5 kids, 6 outbox, 7 needs
-- ARGV  for each edge: parent, mark ('|', or '#' for a workflow and its job), child
-- Reply {'ok', for each edge: the parent's state, why it ended in a word, the peer of its last run, a ! and whom
--       it chose, if it was a decision, else '', 1 if its children are yet to be told, 1 if it knows of this one, its number in kids, ...}
--       state: as in heirs.lua; with # also 'closed', if the workflow's gate is
local parents = {}
for i = 1, #ARGV, 3 do parents[#parents + 1] = ARGV[i] end
local specs, metas = redis.call('HMGET', KEYS[1], unpack(parents)), redis.call('HMGET', KEYS[2], unpack(parents))
local reply = {'ok'}
for j, parent in ipairs(parents) do
  local mark, child = ARGV[j * 3 - 1], ARGV[j * 3]
  local m, why
  if metas[j] then m, why = read(metas[j]) end
  -- What can't be read is for repair to decide, or for a newer program.
  local state, chosen, family = why and 'running' or specs[j] and 'scheduled' or 'gone', '', parent
  if mark == '#' then
    family = parent .. '#'
    state = gate_of(m, not m and state == 'gone', parent, KEYS[7])
  elseif m then
    state, chosen = stance(m, parent, KEYS[3])
  end
  reply[#reply + 1] = state
  reply[#reply + 1] = m and m.reason or ''
  reply[#reply + 1] = m and m.peer or ''
  reply[#reply + 1] = chosen
  reply[#reply + 1] = redis.call('ZSCORE', KEYS[6], family) and 1 or 0
  local known = redis.call('HGET', KEYS[5], family)
  reply[#reply + 1] = redis.call('ZSCORE', KEYS[4], parent .. mark .. child) and known and 1 or 0
  -- One that is lost was no higher than this.
  reply[#reply + 1] = known and known:match('^(%d+)|') or int(now_us)
end
return reply
