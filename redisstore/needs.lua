-- needs: what jobs wait for, told before they are enqueued, or forgotten, if they are not. Moves no job. Sent twice, it
-- says the same.
-- KEYS  1 needs, 2 gates, 3 spec, 4 meta
-- ARGV  1 'tell'; 'forget'; 'drop': these parents are no longer looked at, whether or not the job exists; 'join': a workflow
--       that exists and whose gate is closed waits for these, its jobs; 2 until when a gate may be closed (ms from now), 3 the
--       number of who says so (digits): what others have said before, who did not enqueue the job, counts no more;
--       then for each job: id, number of parents, for each: its id, how it must end, as in release.lua; then the gate that
--       the job waits for: 'own', 'its' workflow's, or ''
-- Reply {'ok', for each job 1 if it exists already, unless as a workflow that was never wholly submitted; for forget if
--       another has told since; for join if it does not exist, or its gate is open: then nothing was done for it, ...}
local what = ARGV[1]
local jobs, ids = {}, {}
local i = 4
while i <= #ARGV do
  local n = tonumber(ARGV[i + 1])
  jobs[#jobs + 1] = {id = ARGV[i], first = i + 2, last = i + 1 + 2 * n, gate = ARGV[i + 2 + 2 * n]}
  ids[#ids + 1] = ARGV[i]
  i = i + 3 + 2 * n
end
typed({KEYS[1]}, {KEYS[2]})
local had = redis.call('HMGET', KEYS[3], unpack(ids))
local metas = what == 'drop' and redis.call('HMGET', KEYS[4], unpack(ids)) or {}
local reply = {'ok'}
for j, job in ipairs(jobs) do
  local gate, sum = redis.call('HGET', KEYS[1], job.id .. '|'), redis.call('HGET', KEYS[1], job.id .. '||')
  local total = totals(sum or '')
  local refused = false
  if what == 'tell' then
    refused = had[j] and not void(redis.call('HGET', KEYS[4], job.id))
    -- Who says so for the first time begins anew.
    if total.by ~= ARGV[3] then
      total = totals('')
      total.by, gate = ARGV[3], false
    end
  elseif what == 'forget' then
    refused = had[j] or total.by ~= ARGV[3]
  elseif what == 'join' then
    refused = not had[j] or not gate
  end
  reply[j + 1] = refused and 1 or 0
  if refused then
    -- Nothing is done.
  elseif what == 'forget' then
    for a = job.first, job.last, 2 do redis.call('HDEL', KEYS[1], job.id .. '|' .. ARGV[a]) end
    redis.call('HDEL', KEYS[1], job.id .. '|', job.id .. '||')
    redis.call('ZREM', KEYS[2], job.id)
  else
    -- A workflow may still be told of its other jobs, whether or not it was told of these before.
    local m = metas[j] and job.first <= job.last and read(metas[j])
    local flow = m and is_workflow(m.lane)
    for a = job.first, job.last, 2 do
      local field = job.id .. '|' .. ARGV[a]
      local how = redis.call('HGET', KEYS[1], field)
      local mark, letter, by = (how or ''):match('^([!?+]?)(%a)[%d@]*#?(%d*)$')
      local counts = how and by == total.by
      flow = flow or letter == 'm'
      if what == 'drop' then
        if how then redis.call('HDEL', KEYS[1], field) end
        if counts then
          if mark ~= '+' then total.pending = total.pending - 1 end
          if mark == '!' or mark == '?' then total.violated = total.violated - 1 end
          if mark == '?' then total.left = total.left - 1 end
          if mark == '+' and letter == 'c' then total.out = total.out - 1 end
        end
      elseif not counts then
        redis.call('HSET', KEYS[1], field, ARGV[a + 1] .. '#' .. total.by)
        total.pending = total.pending + 1
      end
    end
    if job.gate ~= '' and not gate then
      redis.call('HSET', KEYS[1], job.id .. '|', 'g')
      total.pending = total.pending + 1
    end
    if job.gate == 'own' then redis.call('ZADD', KEYS[2], int(now + ARGV[2]), job.id) end
    if total.pending > 0 or total.out > 0 or flow and had[j] and sum then
      redis.call('HSET', KEYS[1], job.id .. '||', sums_of(total))
    elseif sum then
      redis.call('HDEL', KEYS[1], job.id .. '||')
    end
  end
end
return reply
