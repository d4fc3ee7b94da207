-- mend: what a blocked job waits for, put right, unless any of it has changed since it was read. Moves no job.
-- KEYS  1 call, 2 info, 3 meta, 4 needs, 5 gates
-- ARGV  1 call number, 2 term (0: an operator's), then for each job: id, until when its gate may be closed (ms from now; ''
--       to leave gates as it is), number of fields of needs, for each: its name, what it was, what it is to be ('' for none)
-- Reply {'ok', for each job 1 if that was done, ...}, {'deposed'}, {'superseded'}
if ARGV[2] ~= '0' and deposed(KEYS[2], ARGV[2]) then return {'deposed'} end
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
local reply = {'ok'}
if answer then
  for word in answer:gmatch('%d') do reply[#reply + 1] = tonumber(word) end
  return reply
end

local sets, dels, gates = {}, {}, {}
local i, words = 3, {}
while i <= #ARGV do
  local id, gate, n = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local record = redis.call('HGET', KEYS[3], id)
  local m = record and read(record)
  local good = m and m.state == 'blocked' and (gate == '' or not redis.call('ZSCORE', KEYS[5], id))
  for a = i + 3, i + 2 + 3 * n, 3 do
    good = good and (redis.call('HGET', KEYS[4], ARGV[a]) or '') == ARGV[a + 1]
  end
  if good then
    for a = i + 3, i + 2 + 3 * n, 3 do
      if ARGV[a + 2] == '' then
        dels[#dels + 1] = ARGV[a]
      elseif ARGV[a + 2] ~= ARGV[a + 1] then
        sets[#sets + 1] = ARGV[a]
        sets[#sets + 1] = ARGV[a + 2]
      end
    end
    if gate ~= '' then
      gates[#gates + 1] = int(now + gate)
      gates[#gates + 1] = id
    end
  end
  words[#words + 1] = good and 1 or 0
  reply[#reply + 1] = good and 1 or 0
  i = i + 3 + 3 * n
end
typed({KEYS[4]}, {KEYS[5]})
-- All checks are done; from here on it writes.
for a = 1, #dels, 1000 do redis.call('HDEL', KEYS[4], unpack(dels, a, math.min(a + 999, #dels))) end
for a = 1, #sets, 1000 do redis.call('HSET', KEYS[4], unpack(sets, a, math.min(a + 999, #sets))) end
if #gates > 0 then redis.call('ZADD', KEYS[5], unpack(gates)) end
-- Where nothing was done there is nothing to remember.
if #sets + #dels + #gates > 0 then keep(KEYS[1], ARGV[1], table.concat(words)) end
return reply
