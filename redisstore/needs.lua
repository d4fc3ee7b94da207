-- needs: what jobs wait for, told before they are enqueued, or forgotten, if they are not. Moves no job. Sent twice, it
-- says the same.
-- KEYS  1 needs, 2 gates, 3 spec
-- ARGV  1 'tell', 'forget', or 'drop' (these parents are no longer looked at, whether or not the job exists), then for each job: id, number of parents, for each: its id, what it must do: 's' succeed, 'f' not succeed, 'a' end; then
--       'g' if the job waits for its gate too, else ''
-- Reply {'ok', for each job 1 if it exists already: then nothing was done for it, ...}
local jobs, ids = {}, {}
local i = 2
while i <= #ARGV do
  local n = tonumber(ARGV[i + 1])
  jobs[#jobs + 1] = {id = ARGV[i], first = i + 2, n = n, gate = ARGV[i + 2 + 2 * n]}
  ids[#ids + 1] = ARGV[i]
  i = i + 3 + 2 * n
end
typed({KEYS[1]}, {KEYS[2]})
if ARGV[1] == 'drop' then
  local reply = {'ok'}
  for j, job in ipairs(jobs) do
    local pending, violated = (redis.call('HGET', KEYS[1], job.id .. '||') or ''):match('^(%d+),(%d+)$')
    for a = job.first, job.first + 2 * job.n - 1, 2 do
      local field = job.id .. '|' .. ARGV[a]
      local how = redis.call('HGET', KEYS[1], field)
      if how then
        redis.call('HDEL', KEYS[1], field)
        if pending then
          pending = pending - 1
          if how:sub(1, 1) == '!' then violated = violated - 1 end
        end
      end
    end
    if pending and pending + 0 > 0 then
      redis.call('HSET', KEYS[1], job.id .. '||', int(pending + 0) .. ',' .. int(violated + 0))
    else
      redis.call('HDEL', KEYS[1], job.id .. '||')
    end
    reply[j + 1] = 0
  end
  return reply
end
local had = redis.call('HMGET', KEYS[3], unpack(ids))
local reply = {'ok'}
for j, job in ipairs(jobs) do
  reply[j + 1] = had[j] and 1 or 0
  if not had[j] and ARGV[1] == 'forget' then
    for a = job.first, job.first + 2 * job.n - 1, 2 do redis.call('HDEL', KEYS[1], job.id .. '|' .. ARGV[a]) end
    redis.call('HDEL', KEYS[1], job.id .. '|', job.id .. '||')
    redis.call('ZREM', KEYS[2], job.id)
  elseif not had[j] then
    local new = 0
    for a = job.first, job.first + 2 * job.n - 1, 2 do
      new = new + redis.call('HSETNX', KEYS[1], job.id .. '|' .. ARGV[a], ARGV[a + 1])
    end
    if job.gate ~= '' then
      new = new + redis.call('HSETNX', KEYS[1], job.id .. '|', job.gate)
      redis.call('ZADD', KEYS[2], 'NX', int(now), job.id)
    end
    local pending, violated = (redis.call('HGET', KEYS[1], job.id .. '||') or '0,0'):match('^(%d+),(%d+)$')
    redis.call('HSET', KEYS[1], job.id .. '||', int((pending or 0) + new) .. ',' .. (violated or 0))
  end
end
return reply
