-- heirs: the children that are to be released. Moves no job.
-- KEYS  1 outbox, 2 kids, 3 edges, 4 meta
-- ARGV  1 parents at most, 2 children at most
-- Reply {'ok', for each parent {its id, when it ended (ms), its state, the last child that was released, 1 if these are
--       all that are left, child, ...}, ...}
local found = redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1, 'WITHSCORES')
local reply, left = {'ok'}, tonumber(ARGV[2])
local parents = {}
for j = 1, #found, 2 do parents[#parents + 1] = found[j] end
if #parents == 0 then return reply end
local cursors, metas = redis.call('HMGET', KEYS[2], unpack(parents)), redis.call('HMGET', KEYS[4], unpack(parents))
for j, parent in ipairs(parents) do
  if left <= 0 then break end
  local m = metas[j] and read(metas[j])
  local from = cursors[j] and cursors[j] ~= '' and '(' .. parent .. '|' .. cursors[j] or '[' .. parent .. '|'
  local edges = redis.call('ZRANGEBYLEX', KEYS[3], from, '(' .. parent .. '}', 'LIMIT', 0, left)
  local one = {parent, int(found[j * 2] + 0), m and m.state or 'gone', cursors[j] or '', #edges < left and 1 or 0}
  for _, edge in ipairs(edges) do one[#one + 1] = edge:sub(#parent + 2) end
  left = left - math.max(#edges, 1)
  reply[#reply + 1] = one
end
return reply
