-- settle: running -> succeeded, failed, or scheduled again (retry, snooze, giveback, unstarted).
-- KEYS  1 call, 2 meta, 3 run:<peer>, 4 lanes, 5 counts, 6 errors, 7 result, 8 progress,
--       then the targets: lanes and sets of ended jobs
-- ARGV  1 call number, 2 peer, 3 number of targets, for each: state, lane name ('' unless a lane), 'kind:priority',
--       then for each job: id, epoch, outcome, target (its place), in (ms), reason, error, result
-- Reply {'ok', wake 0 or 1, places of the stale jobs ...}, {'superseded'}
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
if answer then
  local reply = {'ok', 0}
  for place in answer:gmatch('%d+') do reply[#reply + 1] = place end
  return reply
end

local targets = tonumber(ARGV[3])
local begin = 4 + targets * 3
local ids = {}
for i = begin, #ARGV, 8 do ids[#ids + 1] = ARGV[i] end
local metas = redis.call('HMGET', KEYS[2], unpack(ids))

local stale, done, seen = {}, {}, {}
local fields, errors, results, moves, heads = {}, {}, {}, {}, {}
for j, id in ipairs(ids) do
  local i = begin + (j - 1) * 8
  local epoch, outcome, target, reason = ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), ARGV[i + 5]
  local t = 3 + (target - 1) * 3
  local meta = metas[j]
  local running = '1|running|||' .. epoch .. '|' .. ARGV[2] .. '|'
  local score, m, after
  if outcome == 'succeed' and meta and meta:find(running, 1, true) == 1 and not seen[id] then
    -- The way of most jobs, without taking the record apart.
    score, after = now, '1|succeeded||' .. int(now) .. '|' .. epoch .. '|' .. ARGV[2] .. '|' .. meta:sub(#running + 1)
    add('succeeded', ARGV[t + 3], 1)
  else
    m = meta and read(meta)
  end
  if after then
    -- Done.
  elseif not m or m.epoch ~= epoch or m.peer ~= ARGV[2] or seen[id] then
    stale[#stale + 1] = j
  elseif m.state == 'running' then
    score = now
    if ARGV[i + 6] ~= '' then
      -- A ring: each run's error has its place, the oldest is overwritten.
      errors[#errors + 1] = int((m.runs - 1) % 10) .. '|' .. id
      errors[#errors + 1] = int(now) .. '|' .. epoch .. '|' .. ARGV[2] .. '|' .. ARGV[i + 6]
    end
    if outcome == 'fail' or outcome == 'retry' then m.fails = int(m.fails + 1) end
    if outcome == 'succeed' or outcome == 'fail' then
      m.ended = int(now)
    elseif outcome == 'unstarted' then
      m.runs, score = int(m.runs - 1), tonumber(m.due)
    else
      score = now + ARGV[i + 4]
    end
    m.state, m.reason = ARGV[t + 1], reason
    if ARGV[t + 2] == '' then
      add(m.state, ARGV[t + 3], 1)
    else
      m.due = int(score)
      if not heads[target] or score < heads[target] then heads[target] = score end
    end
    after = write(m)
  end
  if after then
    seen[id] = true
    add('running', ARGV[t + 3], -1)
    if ARGV[i + 7] ~= '' and ARGV[t + 2] == '' then
      results[#results + 1] = id
      results[#results + 1] = ARGV[i + 7]
    end
    fields[#fields + 1] = id
    fields[#fields + 1] = after
    local move = moves[target] or {}
    moves[target] = move
    move[#move + 1] = int(score)
    move[#move + 1] = id
    done[#done + 1] = id
  end
  -- Under the same epoch and not running: settled before, by this very run.
end

local wake = 0
if #done > 0 then
  redis.call('HSET', KEYS[2], unpack(fields))
  redis.call('ZREM', KEYS[3], unpack(done))
  redis.call('HDEL', KEYS[8], unpack(done))
  if #errors > 0 then redis.call('HSET', KEYS[6], unpack(errors)) end
  if #results > 0 then redis.call('HSET', KEYS[7], unpack(results)) end
  for target, move in pairs(moves) do redis.call('ZADD', KEYS[8 + target], unpack(move)) end
  for target, due in pairs(heads) do
    wake = math.max(wake, redis.call('ZADD', KEYS[4], 'LT', 'CH', int(due), ARGV[3 + (target - 1) * 3 + 2]))
  end
  tally(KEYS[5])
end
keep(KEYS[1], ARGV[1], table.concat(stale, ' '))
local reply = {'ok', wake}
for _, place in ipairs(stale) do reply[#reply + 1] = int(place) end
return reply
