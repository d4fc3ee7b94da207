-- reap: running under a silent peer -> scheduled again, or unreachable once its reruns are used up; cancelled if someone
-- has cancelled it.
-- KEYS  1 call, 2 meta, 3 run:<peer>, 4 beats, 5 info, 6 lanes, 7 counts, 8 errors, 9 progress,
--       then for each lane: the lane for jobs that have been run, the sets of unreachable and of cancelled jobs;
--       then kids, outbox
-- ARGV  1 call number, 2 term, 3 peer, 4 beat interval (ms), 5 how long peers may be silent after an outage (ms),
--       6 number of lanes, for each: base name, name of the lane, 'kind:priority',
--       then for each run: id, epoch, lane (its place)
-- Reply {'ok', news (as of enqueue), id, state, base name, ...}, {'deposed'}, {'superseded'}
if deposed(KEYS[5], ARGV[2]) then return {'deposed'} end
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
if answer then
  local news, words = answer:match('^(.*)|(.*)$')
  local reply = {'ok', news}
  for word in words:gmatch('%S+') do reply[#reply + 1] = word end
  return reply
end

-- The chore itself is a sign of life, so that a whole fleet's end is told from an outage.
local outage = touch(KEYS[5], ARGV[4]) > now - ARGV[5]
redis.call('HSET', KEYS[5], 'term', ARGV[2], 'every', ARGV[4])
local until_when = redis.call('ZSCORE', KEYS[4], ARGV[3])
if outage or (until_when and until_when + 0 >= now) then return {'ok', ''} end

local lanes = tonumber(ARGV[6])
local begin = 7 + lanes * 3
local ids = {}
for i = begin, #ARGV, 3 do ids[#ids + 1] = ARGV[i] end
local moved, fields, errors, moves, heads = {}, {}, {}, {}, {}
if #ids > 0 then
  local metas, epochs = redis.call('HMGET', KEYS[2], unpack(ids)), redis.call('ZMSCORE', KEYS[3], unpack(ids))
  for j, id in ipairs(ids) do
    local i = begin + (j - 1) * 3
    local lane = tonumber(ARGV[i + 2])
    local a = 7 + (lane - 1) * 3
    local m, why
    if metas[j] then m, why = read(metas[j]) else why = 'corrupt' end
    if why == 'corrupt' then
      -- Its fields can't tell how often it may run again, so it ends here.
      m = fresh(ARGV[a], int(now))
      m.state, m.epoch, m.peer, m.runs, m.max_reruns = 'running', ARGV[i + 1], ARGV[3], '1', '0'
    end
    local held = epochs[j] and tonumber(epochs[j]) == tonumber(ARGV[i + 1])
    if m and held and m.state == 'running' and m.peer == ARGV[3] and m.epoch + 0 == ARGV[i + 1] + 0 and m.lane == ARGV[a] then
      local target
      errors[#errors + 1] = int((m.runs - 1) % 10) .. '|' .. id
      errors[#errors + 1] = int(now) .. '|' .. m.epoch .. '|' .. m.peer .. '|lost|' .. (why or 'silent') .. '|the peer was silent for too long'
      -- The epoch moves on, so that what the silent peer may still send is refused.
      local cancelled = marked(m)
      m.epoch, m.reason = int(math.min(m.epoch + 1, 8.9e15)), why or 'silent'
      if cancelled then
        m.state, m.reason, m.ended = 'cancelled', 'cancel', int(now)
        target = lane * 3
        add('cancelled', ARGV[a + 2], 1)
      elseif tonumber(m.reruns) < (tonumber(m.max_reruns) or 0) then
        m.state, m.reruns, m.due = 'scheduled', int(m.reruns + 1), int(now)
        target = lane * 3 - 2
        heads[lane] = true
      else
        m.state, m.ended = 'unreachable', int(now)
        target = lane * 3 - 1
        add('unreachable', ARGV[a + 2], 1)
      end
      add('running', ARGV[a + 2], -1)
      fields[#fields + 1] = id
      fields[#fields + 1] = write(m)
      moves[target] = moves[target] or {}
      table.insert(moves[target], int(now))
      table.insert(moves[target], id)
      moved[#moved + 1] = id
      moved[#moved + 1] = m.state
      moved[#moved + 1] = m.lane
    end
  end
end

local targets = {KEYS[6]}
for target in pairs(moves) do targets[#targets + 1] = KEYS[9 + target] end
targets[#targets + 1] = KEYS[#KEYS]
typed({KEYS[7], KEYS[8], KEYS[9], KEYS[#KEYS - 1]}, targets)
local news = {}
if #moved > 0 then
  local gone = {}
  for j = 1, #moved, 3 do gone[#gone + 1] = moved[j] end
  redis.call('HSET', KEYS[2], unpack(fields))
  redis.call('HSET', KEYS[8], unpack(errors))
  redis.call('ZREM', KEYS[3], unpack(gone))
  redis.call('HDEL', KEYS[9], unpack(gone))
  for target, move in pairs(moves) do redis.call('ZADD', KEYS[9 + target], unpack(move)) end
  for lane in pairs(heads) do
    redis.call('ZADD', KEYS[6], 'LT', int(now), ARGV[7 + (lane - 1) * 3 + 1])
    news[#news + 1] = ARGV[7 + (lane - 1) * 3 + 1]
  end
  tally(KEYS[7])
  local ended = {}
  for j = 1, #moved, 3 do
    if moved[j + 1] ~= 'scheduled' then ended[#ended + 1] = moved[j] end
  end
  bequeath(ended)
end
if redis.call('ZCARD', KEYS[3]) == 0 then redis.call('ZREM', KEYS[4], ARGV[3]) end
news = table.concat(news, ' ')
keep(KEYS[1], ARGV[1], news .. '|' .. table.concat(moved, ' '))
return {'ok', news, unpack(moved)}
