-- kin: removes what is left of families, if nothing belongs to it, and notes those that have edges. Moves no job.
-- KEYS  1 call, 2 info, 3 spec, 4 meta, 5 edges, 6 kids, 7 outbox, 8 gates, 9 needs
-- ARGV  1 call number, 2 term (0: an operator's), then for each: what, name, id:
--       'edge', its name, '' if it is none, else the parent's id: removed if there is no such job and its gate is not closed;
--       'family', an edge, the name of its family in kids: noted again;
--       'kids', its name, the parent's id: removed if there are no edges of it; 'last', the same name, the last child that
--       was told: they are told from the first on; 'gate', the job's id, '': removed if
--       needs knows of no gate; 'need', a field, '': removed
-- Reply {'ok', for each 1 if that was done, ...}, {'deposed'}, {'superseded'}
if ARGV[2] ~= '0' and deposed(KEYS[2], ARGV[2]) then return {'deposed'} end
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
local reply = {'ok'}
if answer then
  for word in answer:gmatch('%d') do reply[#reply + 1] = tonumber(word) end
  return reply
end

local gone, words, any = {}, {}, false
for i = 3, #ARGV, 3 do
  local what, name, id, goes = ARGV[i], ARGV[i + 1], ARGV[i + 2], false
  if what == 'edge' then
    goes = redis.call('ZSCORE', KEYS[5], name) and (id == '' or redis.call('HEXISTS', KEYS[3], id) == 0
      and redis.call('HEXISTS', KEYS[4], id) == 0 and redis.call('HEXISTS', KEYS[9], id .. '|') == 0)
  elseif what == 'family' then
    goes = redis.call('ZSCORE', KEYS[5], name) and redis.call('HEXISTS', KEYS[6], id) == 0
  elseif what == 'kids' then
    goes = redis.call('HEXISTS', KEYS[6], name) == 1 and childless(KEYS[5], id, name ~= id and '#' or '|')
  elseif what == 'last' then
    local before = gone[#gone]
    goes = redis.call('HGET', KEYS[6], name) == id and not (before and before[2] == name)
  elseif what == 'gate' then
    goes = redis.call('ZSCORE', KEYS[8], name) and redis.call('HEXISTS', KEYS[9], name .. '|') == 0
  else
    goes = redis.call('HEXISTS', KEYS[9], name) == 1
  end
  any = any or goes
  gone[#gone + 1] = goes and {what, name, id} or false
  words[#words + 1] = goes and 1 or 0
  reply[#reply + 1] = goes and 1 or 0
end
typed({KEYS[6], KEYS[9]}, {KEYS[5], KEYS[7], KEYS[8]})
-- All checks are done; from here on it writes.
for _, one in ipairs(gone) do
  if one and one[1] == 'edge' then
    redis.call('ZREM', KEYS[5], one[2])
  elseif one and one[1] == 'family' then
    redis.call('HSETNX', KEYS[6], one[3], int(now_us) .. '|')
  elseif one and one[1] == 'kids' then
    redis.call('HDEL', KEYS[6], one[2])
    redis.call('ZREM', KEYS[7], one[2])
  elseif one and one[1] == 'last' then
    redis.call('HSET', KEYS[6], one[2], int(now_us) .. '|')
  elseif one and one[1] == 'gate' then
    redis.call('ZREM', KEYS[8], one[2])
  elseif one then
    redis.call('HDEL', KEYS[9], one[2])
  end
end
-- Where nothing was found there is nothing to remember.
if any then keep(KEYS[1], ARGV[1], table.concat(words)) end
return reply
