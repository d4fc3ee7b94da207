-- schedule: makes, changes, pauses, resumes, sets aside or removes a schedule. Moves no job.
-- KEYS  1 call, 2 schedules, 3 cursors, 4 fires, 5 info
-- ARGV  1 call number, 2 name, 3 what: 'put', 'pause', 'resume', 'break' or 'remove',
--       4 the version of the definition that this was decided by, 0: there was none, -1: whatever there is,
--       5 put: the definition, break: why, 6 put, resume: the cursor (ms), '' to leave it,
--       7 put, resume: when it is due next (ms), '' for never, 8 the cursor that the new one takes the place of (ms),
--       '': whatever there is
-- Reply {'ok', 1 if it is due, or will be before all others that are not yet}, {'none'}, {'superseded'}, {'newer'}: a newer program's,
--       {'moved'}: it is another version, or what is
--       due is to be fired first, since the cursor would pass over it, or some of it was fired meanwhile, since the
--       cursor would go back before it. Nothing was done.
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
if answer then return {answer:match('^%a+'), tonumber(answer:match('%d+$')) or 0} end
local function done(word, first)
  keep(KEYS[1], ARGV[1], word .. ' ' .. first)
  return {word, first}
end

local name, what, version, at, next = ARGV[2], ARGV[3], ARGV[4], ARGV[6], ARGV[7]
local definition, record = redis.call('HGET', KEYS[2], name), redis.call('HGET', KEYS[3], name)
local c, why
if record then c, why = cursor_of(record) end
local score = redis.call('ZSCORE', KEYS[4], name)
typed({KEYS[2], KEYS[3], KEYS[5]}, {KEYS[4]})
local removed = (redis.call('HGET', KEYS[5], 'removed') or ''):match('^%d+$') or '0'
removed = #removed <= 15 and tonumber(removed) or 0
if why == 'newer' then return {'newer', 0} end
if version ~= '-1' and version ~= (c and c.version or '0') then return {'moved', 0} end
if not definition and not record and what ~= 'put' then
  redis.call('ZREM', KEYS[4], name) -- where it would be due for ever
  return done('none', 0)
end
if (what == 'put' and at ~= '' or what == 'pause' and ARGV[8] ~= '') and c and c.state == 'on' and score and score + 0 <= now then return {'moved', 0} end
if c and ARGV[8] ~= '' and c.at ~= ARGV[8] then return {'moved', 0} end

if what == 'remove' then
  if c and tonumber(c.version) > removed then redis.call('HSET', KEYS[5], 'removed', c.version) end
  redis.call('HDEL', KEYS[2], name)
  redis.call('HDEL', KEYS[3], name)
  redis.call('ZREM', KEYS[4], name)
  return done('ok', 0)
end
if not c then
  c = {version = '0', state = 'on', at = int(now), seen = '', last = '', missed = '0', from = '', to = '', reason = ''}
end
if what == 'put' then
  redis.call('HSET', KEYS[2], name, ARGV[5])
  -- No version returns: what was decided by a definition that was removed must not count for the one made after it, though
  -- the clock stands, nor must it after a failover that lost writes.
  c.version = int(math.max(c.version + 1, removed + 1, now))
  if c.state == 'broken' then c.state = 'on' end
  c.reason = ''
elseif what == 'pause' then
  if c.state == 'on' then c.state = 'paused' end
elseif what == 'resume' then
  if c.state ~= 'paused' then return done('ok', 0) end
  c.state = 'on'
else
  c.state, c.reason = 'broken', ARGV[5]
end
if at ~= '' then c.at, c.seen = at, '' end
redis.call('HSET', KEYS[3], name, cursor_text(c))
local first = 0
if c.state == 'on' and next ~= '' then
  redis.call('ZADD', KEYS[4], next, name)
  -- What is due already and stays so, since it can't be fired, is before all others.
  if next + 0 <= now or redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. int(now), '+inf', 'LIMIT', 0, 1)[1] == name then first = 1 end
else
  redis.call('ZREM', KEYS[4], name)
end
return done('ok', first)
