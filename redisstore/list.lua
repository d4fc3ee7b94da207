-- list: reads jobs from indexes, in the order of their scores, then ids; and their records at the same moment. It
-- changes nothing, so it may be sent any number of times.
-- KEYS  1 meta, then the indexes (zsets)
-- ARGV  1 'up', or 'down' for the reverse order,
--       then for each index: lowest and highest score, jobs at most, the score and id after which to begin ('' and '': none)
-- Reply {'ok', for each index: {id, score, record or false, ...}, ...}
local down = ARGV[1] == 'down'

-- By bytes, as Redis orders members; Lua's own order follows the server's locale.
local function above(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = a:byte(i, i), b:byte(i, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end

-- rank is how many members stand before the place, or, with over, at it or before.
local function rank(key, score, id, over)
  local low, high = redis.call('ZCOUNT', key, '-inf', '(' .. score), redis.call('ZCOUNT', key, '-inf', score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local member = redis.call('ZRANGE', key, middle, middle)[1]
    if above(member, id) or (member == id and not over) then high = middle else low = middle + 1 end
  end
  return low
end

local reply = {'ok'}
for j = 1, #KEYS - 1 do
  local key, a = KEYS[1 + j], 2 + (j - 1) * 5
  local lowest, highest, n, score, id = ARGV[a], ARGV[a + 1], tonumber(ARGV[a + 2]), ARGV[a + 3], ARGV[a + 4]
  local found
  if score == '' then
    if down then
      found = redis.call('ZREVRANGEBYSCORE', key, highest, lowest, 'WITHSCORES', 'LIMIT', 0, n)
    else
      found = redis.call('ZRANGEBYSCORE', key, lowest, highest, 'WITHSCORES', 'LIMIT', 0, n)
    end
  elseif down then
    local card, at = redis.call('ZCARD', key), rank(key, score, id, false)
    found = at == 0 and {} or redis.call('ZREVRANGE', key, card - at, card - at + n - 1, 'WITHSCORES')
  else
    local at = rank(key, score, id, true)
    found = redis.call('ZRANGE', key, at, at + n - 1, 'WITHSCORES')
  end
  local ids, batch = {}, {}
  for i = 1, #found, 2 do
    local s = found[i + 1] + 0
    if s >= tonumber(lowest) and s <= tonumber(highest) then ids[#ids + 1] = found[i] end
  end
  if #ids > 0 then
    -- What is left out stands at the end.
    local records = redis.call('HMGET', KEYS[1], unpack(ids))
    for i = 1, #ids do
      batch[i * 3 - 2], batch[i * 3 - 1], batch[i * 3] = ids[i], found[i * 2], records[i]
    end
  end
  reply[#reply + 1] = batch
end
return reply
