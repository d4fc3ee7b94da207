-- heirs: the children that are to be told what has become of a parent, and the jobs of workflows whose gate is no longer
-- closed. Moves no job.
-- KEYS  1 outbox, 2 kids, 3 edges, 4 meta, 5 result, 6 needs
-- ARGV  1 parents at most, 2 children at most
-- Reply {'ok', the time (µs) of the last in the outbox or now, for each parent {its id, with a # behind it for a workflow and
--       its jobs; when it came into the outbox (µs), its number in kids, its state, the last child that was told, 1 if these
--       are all that are left, the peer of its last run (of a workflow and its jobs: who has told what it waits for), why it ended in a word, a ! and whom it chose, if it was a decision,
--       else '', child, ...}, ...}
--       state: 'gone'; 'unchosen' for skipped since a decision left it out; for workflows and their jobs 'open', 'void' if it
--       is cancelled or does not exist, or 'closed': its jobs are not to be told yet. A parent that has not ended was requeued.
local found = redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1, 'WITHSCORES')
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
local reply, left = {'ok', int(math.max(now_us, last[2] and last[2] + 0 or 0))}, tonumber(ARGV[2])
local parents, ids = {}, {}
for j = 1, #found, 2 do
  parents[#parents + 1] = found[j]
  ids[#ids + 1] = found[j]:match('^[^#]*')
end
if #parents == 0 then return reply end
local cursors, metas = redis.call('HMGET', KEYS[2], unpack(parents)), redis.call('HMGET', KEYS[4], unpack(ids))
for j, parent in ipairs(parents) do
  if left <= 0 then break end
  local m = metas[j] and read(metas[j])
  local mark, stop, state, chosen = '|', '}', 'gone', ''
  local first = '[' .. parent .. '|'
  if parent ~= ids[j] then
    mark, stop, first = '#', '$', '[' .. parent
    state = gate_of(m, not m, ids[j], KEYS[6])
  elseif m then
    state, chosen = stance(m, parent, KEYS[5])
  end
  local number, cursor = (cursors[j] or ''):match('^(%d+)|(.*)$')
  if cursor and cursor ~= '' then first = '(' .. ids[j] .. mark .. cursor end
  local edges = redis.call('ZRANGEBYLEX', KEYS[3], first, '(' .. ids[j] .. stop, 'LIMIT', 0, left)
  local by = m and m.peer or ''
  if mark == '#' then by = totals(redis.call('HGET', KEYS[6], ids[j] .. '||') or '').by end
  local one = {parent, since(found[j * 2]), number or '0', state, cursor or '', #edges < left and 1 or 0, by, m and m.reason or '', chosen}
  for _, edge in ipairs(edges) do one[#one + 1] = edge:sub(#ids[j] + 2) end
  left = left - math.max(#edges, 1)
  reply[#reply + 1] = one
end
return reply
