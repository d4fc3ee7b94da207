-- due: schedules whole, those that are due or those that are named. Moves no job.
-- KEYS  1 schedules, 2 cursors, 3 fires, 4 spec, 5 meta
-- ARGV  1 how many at most, if those that are due are asked for, 2 bytes of definitions at most, 3 how many of those that
--       are due are passed over; then names
-- Reply {'ok', now (µs), when the first one that is not due yet will be (ms) or '', how many are due, for each schedule:
--       {name, definition or '', cursor or '', when it is due or '', the record of its last occurrence, 'fresh' if that has
--       none yet, '' if it is gone}, ...}: fewer than asked for, if they are large, but one at least
local names = {}
for i = 4, #ARGV do names[#names + 1] = ARGV[i] end
if #names == 0 then names = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', int(now), 'LIMIT', ARGV[3], ARGV[1]) end
local later = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. int(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local reply = {'ok', int(now_us), later[2] and int(later[2] + 0) or '', redis.call('ZCOUNT', KEYS[3], '-inf', int(now))}
-- Their lengths are asked for first, since a read holds Redis for as long as it is large.
local bytes, last = tonumber(ARGV[2]), 0
for j, name in ipairs(names) do
  bytes = bytes - redis.call('HSTRLEN', KEYS[1], name)
  if bytes < 0 and j > 1 then break end
  last = j
end
if last == 0 then return reply end
local definitions = redis.call('HMGET', KEYS[1], unpack(names, 1, last))
local cursors = redis.call('HMGET', KEYS[2], unpack(names, 1, last))
local scores = redis.call('ZMSCORE', KEYS[3], unpack(names, 1, last))
local lasts = {}
for j = 1, last do
  local c = cursors[j] and cursor_of(cursors[j])
  lasts[j] = c and c.last or ''
end
local metas = redis.call('HMGET', KEYS[5], unpack(lasts))
for j = 1, last do
  local record = metas[j] or ''
  if lasts[j] ~= '' and record == '' and redis.call('HEXISTS', KEYS[4], lasts[j]) == 1 then record = 'fresh' end
  reply[#reply + 1] = {names[j], definitions[j] or '', cursors[j] or '', scores[j] and int(scores[j] + 0) or '', record}
end
return reply
