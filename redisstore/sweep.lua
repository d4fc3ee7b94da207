-- sweep: removes what is left of jobs of which there is neither spec nor record, and entries that can't be read. Moves
-- no job.
-- KEYS  1 call, 2 info, 3 spec, 4 meta, 5 the hash
-- ARGV  1 call number, 2 term (0: an operator's), then for each entry: field, id of its job, its value if that can't be
--       read, else ''
-- Reply {'ok', field, 'orphan' or 'unreadable', ...}, {'deposed'}, {'superseded'}
if ARGV[2] ~= '0' and deposed(KEYS[2], ARGV[2]) then return {'deposed'} end
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
local reply = {'ok'}
if answer then
  for word in answer:gmatch('[^\n]+') do reply[#reply + 1] = word end
  return reply
end

local gone, words = {}, {}
for i = 3, #ARGV, 3 do
  local field, id, why = ARGV[i], ARGV[i + 1], nil
  -- The whole job may have gone since the entry was read.
  if redis.call('HEXISTS', KEYS[5], field) == 0 then
    why = nil
  elseif redis.call('HEXISTS', KEYS[3], id) == 0 and redis.call('HEXISTS', KEYS[4], id) == 0 then
    why = 'orphan'
  elseif ARGV[i + 2] ~= '' and redis.call('HGET', KEYS[5], field) == ARGV[i + 2] then
    why = 'unreadable'
  end
  if why then
    gone[#gone + 1] = field
    words[#words + 1] = field
    words[#words + 1] = why
  end
end
if #gone > 0 then
  redis.call('HDEL', KEYS[5], unpack(gone))
  -- Where nothing was found there is nothing to remember.
  keep(KEYS[1], ARGV[1], table.concat(words, '\n'))
end
for _, word in ipairs(words) do reply[#reply + 1] = word end
return reply
