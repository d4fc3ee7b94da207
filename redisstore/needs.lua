-- needs: what jobs wait for, told before they are enqueued, or forgotten, if they are not. Moves no job. Sent twice, it
-- says the same.
-- KEYS  1 needs, 2 gates, 3 spec
-- ARGV  1 'tell'; 'forget'; 'drop': these parents are no longer looked at, whether or not the job exists; 'join': a workflow
--       that exists and whose gate is closed waits for these, its jobs; 2 until when a gate may be closed (ms from now);
--       then for each job: id, number of parents, for each: its id, how it must end, as in release.lua; then the gate that
--       the job waits for: 'own', 'its' workflow's, or ''
-- Reply {'ok', for each job 1 if it exists already (for join: if it does not, or its gate is open): then nothing was done
--       for it, but by drop, ...}
local what = ARGV[1]
local jobs, ids = {}, {}
local i = 3
while i <= #ARGV do
  local n = tonumber(ARGV[i + 1])
  jobs[#jobs + 1] = {id = ARGV[i], first = i + 2, last = i + 1 + 2 * n, gate = ARGV[i + 2 + 2 * n]}
  ids[#ids + 1] = ARGV[i]
  i = i + 3 + 2 * n
end
typed({KEYS[1]}, {KEYS[2]})
local had = redis.call('HMGET', KEYS[3], unpack(ids))
local reply = {'ok'}
for j, job in ipairs(jobs) do
  local refused = had[j] and (what == 'tell' or what == 'forget')
  if what == 'join' then refused = not had[j] or redis.call('HEXISTS', KEYS[1], job.id .. '|') == 0 end
  reply[j + 1] = refused and 1 or 0
  if what == 'drop' or not refused then
    local sum = redis.call('HGET', KEYS[1], job.id .. '||')
    local total = totals(sum or '')
    for a = job.first, job.last, 2 do
      local field = job.id .. '|' .. ARGV[a]
      if what == 'drop' then
        local how = redis.call('HGET', KEYS[1], field)
        if how then
          redis.call('HDEL', KEYS[1], field)
          local mark = how:sub(1, 1)
          if mark ~= '+' then total.pending = total.pending - 1 end
          if mark == '!' or mark == '?' then total.violated = total.violated - 1 end
          if mark == '?' then total.left = total.left - 1 end
          if mark == '+' and how:sub(2, 2) == 'c' then total.out = total.out - 1 end
        end
      elseif what == 'forget' then
        redis.call('HDEL', KEYS[1], field)
      else
        total.pending = total.pending + redis.call('HSETNX', KEYS[1], field, ARGV[a + 1])
      end
    end
    if what == 'forget' then
      redis.call('HDEL', KEYS[1], job.id .. '|', job.id .. '||')
      redis.call('ZREM', KEYS[2], job.id)
    else
      if job.gate ~= '' then total.pending = total.pending + redis.call('HSETNX', KEYS[1], job.id .. '|', 'g') end
      if job.gate == 'own' then redis.call('ZADD', KEYS[2], 'NX', int(now + ARGV[2]), job.id) end
      if total.pending > 0 or total.out > 0 then
        redis.call('HSET', KEYS[1], job.id .. '||', sums_of(total))
      else
        redis.call('HDEL', KEYS[1], job.id .. '||')
      end
    end
  end
end
return reply
