-- settle: running -> succeeded, failed, cancelled, or scheduled again (retry, snooze, giveback, unstarted). If someone has
-- cancelled the job meanwhile it ends cancelled instead, unless it succeeded or its handler itself called its error final.
-- KEYS  1 call, 2 meta, 3 run:<peer>, 4 lanes, 5 counts, 6 errors, 7 result, 8 progress,
--       then the targets: lanes and sets of ended jobs, then unique, spec, kids, outbox
-- ARGV  1 call number, 2 peer, 3 number of targets, for each: state, lane name ('' unless a lane), 'kind:priority',
--       for a lane and for failed jobs: the target (its place) of jobs that were cancelled, else 0;
--       then what is kept in the targets ('target:ms:jobs ...', -1 no limit),
--       then the number of groups of jobs that succeeded without a result, for each: target (its place), epoch,
--       their ids, separated by spaces: one long string costs less than many short ones;
--       then for each other job: id, epoch, outcome ('own': fail, as its handler itself said), target, in (ms), reason,
--       error, result
-- Reply {'ok', news (as of enqueue), {id and epoch of each stale run ...}, {the same of each whose job
--       ended cancelled instead ...}, number of jobs that ended and have children}, {'superseded'}
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
local news, stale, ended = {}, {}, {}
if answer then
  local new, refused, instead, heirs = answer:match('^(.*)|(.*)|(.*)|(%d+)$')
  for word in refused:gmatch('%S+') do stale[#stale + 1] = word end
  for word in instead:gmatch('%S+') do ended[#ended + 1] = word end
  return {'ok', new, stale, ended, tonumber(heirs)}
end

local peer, stamp = ARGV[2], int(now)
local begin = 5 + tonumber(ARGV[3]) * 4
local ids, n = {}, 0
local singles = begin + 1 + 3 * ARGV[begin]
local lasts = {} -- of each group, among the ids
for i = begin + 1, singles - 1, 3 do
  for id in ARGV[i + 2]:gmatch('%S+') do
    n = n + 1
    ids[n] = id
  end
  lasts[i] = n
end
for a = singles, #ARGV, 8 do
  n = n + 1
  ids[n] = ARGV[a]
end
local metas = redis.call('HMGET', KEYS[2], unpack(ids))

local done, fields, moves, heads = {}, {}, {}, {}
local errors, results = {}, {}
local place, settled = 0, 0
local finished = {}
local family = has_parents()
local function refuse(id, epoch)
  stale[#stale + 1] = id
  stale[#stale + 1] = epoch
end
local function move(target, score, id, record)
  settled = settled + 1
  if family and ARGV[1 + target * 4] == '' then finished[#finished + 1] = id end
  done[settled] = id
  fields[settled * 2 - 1] = id
  fields[settled * 2] = record
  local to = moves[target]
  if not to then
    to = {n = 0}
    moves[target] = to
  end
  to[to.n + 1] = score
  to[to.n + 2] = id
  to.n = to.n + 2
end

-- Most jobs: what changes stands at the head of the record, which need not be taken apart. A record does not name its job:
-- those that were due and claimed together have the same.
for i = begin + 1, singles - 1, 3 do
  local target, epoch = tonumber(ARGV[i]), ARGV[i + 1]
  local class = ARGV[2 + target * 4]
  local from = '1|running|||' .. epoch .. '|' .. peer .. '|'
  local to = '1|succeeded||' .. stamp .. '|' .. epoch .. '|' .. peer .. '|'
  local rest, before = #from + 1, settled
  local same, changed
  for at = place + 1, lasts[i] do
    local id, record = ids[at], metas[at]
    if record and record == same then
      move(target, stamp, id, changed)
    elseif record and record:find(from, 1, true) == 1 then
      same, changed = record, to .. record:sub(rest)
      move(target, stamp, id, changed)
    else
      local m = record and read(record)
      if not m or m.epoch ~= epoch or m.peer ~= peer then
        refuse(id, epoch)
      elseif m.state == 'running' then
        -- It was cancelled, and has succeeded all the same.
        m.state, m.reason, m.ended = 'succeeded', '', stamp
        move(target, stamp, id, write(m))
      end
      -- Else it was settled before, by this very run.
    end
  end
  place = lasts[i]
  add('running', class, before - settled)
  add('succeeded', class, settled - before)
end

for a = singles, #ARGV, 8 do
  place = place + 1
  local id, epoch, outcome, target = ARGV[a], ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 3])
  local t = target * 4
  local m = metas[place] and read(metas[place])
  local own = outcome == 'own'
  if own then outcome = 'fail' end
  if not m or m.epoch ~= epoch or m.peer ~= peer then
    refuse(id, epoch)
  elseif m.state == 'running' then
    local score = now
    if outcome ~= 'succeed' and outcome ~= 'unstarted' then
      -- A ring: each run has its place, the oldest is overwritten. A run that succeeded stands in the record.
      errors[#errors + 1] = int((m.runs - 1) % 10) .. '|' .. id
      errors[#errors + 1] = table.concat({stamp, epoch, peer, outcome, ARGV[a + 5], ARGV[a + 6]}, '|')
    end
    if outcome == 'fail' or outcome == 'retry' or outcome == 'cancel' then m.fails = int(m.fails + 1) end
    if outcome == 'unstarted' then m.runs = int(m.runs - 1) end
    local reason = ARGV[a + 5]
    if not own and tonumber(ARGV[t + 3]) > 0 and marked(m) then
      target, reason = tonumber(ARGV[t + 3]), 'cancel'
      t = target * 4
      ended[#ended + 1] = id
      ended[#ended + 1] = epoch
    elseif outcome == 'unstarted' then
      score = tonumber(m.due)
    elseif ARGV[t + 1] ~= '' then
      score = now + ARGV[a + 4]
    end
    m.state, m.reason = ARGV[t], reason
    add('running', ARGV[t + 2], -1)
    if ARGV[t + 1] == '' then
      m.ended = stamp
      add(m.state, ARGV[t + 2], 1)
      if ARGV[a + 7] ~= '' then
        results[#results + 1] = id
        results[#results + 1] = ARGV[a + 7]
      end
    else
      m.due = int(score)
      if not heads[target] or score < heads[target] then heads[target] = score end
    end
    move(target, int(score), id, write(m))
  end
end

-- The oldest of the sets that these join, some more than join: so what is too much goes bit by bit.
local gone, hashes, zsets = {}, {KEYS[5]}, {KEYS[3]}
for place, age, count in ARGV[begin - 1]:gmatch('(%d+):(%-?%d+):(%-?%d+)') do
  local target = tonumber(place)
  local added = moves[target] and moves[target].n / 2 or 0
  if added > 0 then gone[target] = outlived(KEYS[8 + target], KEYS[2], ARGV[target * 4], tonumber(age), tonumber(count), added, added + 100) end
end
for target in pairs(moves) do zsets[#zsets + 1] = KEYS[8 + target] end
if next(heads) then zsets[#zsets + 1] = KEYS[4] end
if #errors > 0 then hashes[#hashes + 1] = KEYS[6] end
if #results > 0 then hashes[#hashes + 1] = KEYS[7] end
if family then zsets[#zsets + 1] = KEYS[#KEYS] end
if next(gone) then
  for _, key in ipairs({KEYS[6], KEYS[7], KEYS[#KEYS - 3], KEYS[#KEYS - 2]}) do hashes[#hashes + 1] = key end
end
typed(hashes, zsets)
local reported = redis.call('HLEN', KEYS[8]) > 0

local heirs = 0
if settled > 0 then
  for target, outlives in pairs(gone) do
    forget(KEYS[8 + target], ARGV[target * 4], outlives, KEYS[#KEYS - 2], KEYS[2], KEYS[7], KEYS[6], KEYS[#KEYS - 3])
  end
  redis.call('HSET', KEYS[2], unpack(fields))
  redis.call('ZREM', KEYS[3], unpack(done))
  if reported then redis.call('HDEL', KEYS[8], unpack(done)) end
  if #errors > 0 then redis.call('HSET', KEYS[6], unpack(errors)) end
  if #results > 0 then redis.call('HSET', KEYS[7], unpack(results)) end
  for target, to in pairs(moves) do redis.call('ZADD', KEYS[8 + target], unpack(to)) end
  for target, due in pairs(heads) do
    if redis.call('ZADD', KEYS[4], 'LT', 'CH', int(due), ARGV[1 + target * 4]) == 1 then
      news[#news + 1] = ARGV[1 + target * 4] .. (due > now and '+' or '')
    end
  end
  tally(KEYS[5])
  if family then heirs = bequeath(finished) end
end
news = table.concat(news, ' ')
keep(KEYS[1], ARGV[1], news .. '|' .. table.concat(stale, ' ') .. '|' .. table.concat(ended, ' ') .. '|' .. heirs)
return {'ok', news, stale, ended, heirs}
