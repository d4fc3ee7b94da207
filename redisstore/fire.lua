-- fire: nothing -> scheduled, missed or skipped: a schedule's occurrences, and the cursor that says that they were decided.
-- A workflow is blocked in place of scheduled, behind a gate that is to be seen to at once.
-- KEYS  1 call, 2 info, 3 spec, 4 meta, 5 lanes, 6 counts, 7 cursors, 8 fires, 9 needs, 10 blocked,
--       11 gates, then for each lane: the lane, the set of missed jobs, the set of skipped jobs
-- ARGV  1 call number, 2 term (0: not a chore of the leader), 3 number of lanes, their names,
--       then for each schedule, none twice: name, version of its definition, cursor (ms) from which this was decided,
--       cursor afterwards ('' leaves it, for one that is made out of turn), cursor if it has to wait, when it is due next
--       (ms, '' never), how many missed ones have no record and the first and the last of these, 'n|ms|ms' or '',
--       overlap: allow, skip or wait; 1 if more are due and wait, how soon it is then looked at again (ms), number of occurrences, for each: id, due (ms), lane
--       (its place), weight|max_reruns|size|who tells what a workflow waits for (each may be empty), 'run' or 'missed', spec
-- Reply {'ok', news (as of enqueue), 1 if one is due again, or will be before all that are not yet, for each schedule: {word, id of the
--       one that has not ended, what became of each occurrence: scheduled, blocked, missed, skipped, exists, or waits}, ...},
--       {'deposed'}, {'superseded'}, {'full'}
--       word: done; waits, the last occurrence has not ended: what is to be run is left; paused; moved, another has
--       decided, or changed it. Only done and waits have changed anything.
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
if full and not answer then -- see remembered in scripts.go
  answer = 'full'
  keep(KEYS[1], ARGV[1], answer)
end
if answer == 'full' then return {'full'} end
if answer then
  local new, first, rest = answer:match('^(.*)|(%d)|(.*)$')
  local reply = {'ok', new, tonumber(first)}
  for line in rest:gmatch('[^;]+') do
    local words = {}
    for word in line:gmatch('%S+') do words[#words + 1] = word ~= '-' and word or '' end
    reply[#reply + 1] = words
  end
  return reply
end
if ARGV[2] ~= '0' and deposed(KEYS[2], ARGV[2]) then return {'deposed'} end

local names, firings, ids = {}, {}, {}
local lanes = tonumber(ARGV[3])
local i = 4 + lanes
while i <= #ARGV do
  local f = {version = ARGV[i + 1], from = ARGV[i + 2], to = ARGV[i + 3], hold = ARGV[i + 4], next = ARGV[i + 5],
    summary = ARGV[i + 6], overlap = ARGV[i + 7], pending = ARGV[i + 8] == '1', again = ARGV[i + 9],
    first = i + 11, n = tonumber(ARGV[i + 10])}
  names[#names + 1] = ARGV[i]
  firings[#firings + 1] = f
  for a = f.first, f.first + 6 * f.n - 1, 6 do ids[#ids + 1] = ARGV[a] end
  i = f.first + 6 * f.n
end
local cursors = redis.call('HMGET', KEYS[7], unpack(names))
local later = redis.call('ZRANGEBYSCORE', KEYS[8], '(' .. int(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)

-- Which ids are taken, and what their records and those of the last occurrences say.
local exists, asked, lasts = {}, {}, {}
if #ids > 0 then
  local had = redis.call('HMGET', KEYS[3], unpack(ids))
  for j, id in ipairs(ids) do exists[id] = had[j] ~= false end
end
for j in ipairs(names) do
  local c = cursors[j] and cursor_of(cursors[j])
  firings[j].c = c
  if c and c.last ~= '' and firings[j].overlap ~= 'allow' then asked[#asked + 1] = c.last end
end
if #asked > 0 then
  local metas = redis.call('HMGET', KEYS[4], unpack(asked))
  for j, id in ipairs(asked) do
    local m, why
    if metas[j] then m, why = read(metas[j]) end
    if not metas[j] then
      lasts[id] = redis.call('HEXISTS', KEYS[3], id) == 1
    else
      lasts[id] = why == 'newer' or m ~= nil and (m.state == 'scheduled' or m.state == 'blocked' or m.state == 'running')
    end
  end
end

-- What is to be written, gathered by the checks.
local stamp = string.format('%013.0f', now)
local specs, metas, texts, scores, rests = {}, {}, {}, {}, {}
local queues, heads, ended, lines = {}, {}, {}, {}
local needs, blocked, gates = {}, {}, {}
local earliest
local function finish(a, state, reason)
  local base = ARGV[3 + ARGV[a + 2]]:match('^(.*):')
  local m = fresh(base, ARGV[a + 1])
  m.weight, m.max_reruns, m.size = ARGV[a + 3]:match('^(.-)|(.-)|(.-)|')
  m.state, m.reason, m.ended = state, reason, int(now)
  metas[#metas + 1] = ARGV[a]
  metas[#metas + 1] = write(m)
  local set = 11 + (ARGV[a + 2] - 1) * 3 + (state == 'missed' and 2 or 3)
  ended[set] = ended[set] or {}
  table.insert(ended[set], int(now))
  table.insert(ended[set], ARGV[a])
  add(state, class_of(base), 1)
end
-- flow makes a workflow. Its jobs are submitted by who fires it, or else by who looks for gates.
local function flow(a, base)
  local id, m, total = ARGV[a], fresh(base, '0'), totals('')
  m.weight, m.max_reruns, m.size, total.by = ARGV[a + 3]:match('^(.-)|(.-)|(.-)|(.*)$')
  m.state = 'blocked'
  metas[#metas + 1] = id
  metas[#metas + 1] = write(m)
  blocked[#blocked + 1] = start_by(m)
  blocked[#blocked + 1] = id
  gates[#gates + 1] = int(now)
  gates[#gates + 1] = id
  total.pending = 1
  for _, v in ipairs({id .. '|', 'g', id .. '||', sums_of(total)}) do needs[#needs + 1] = v end
  add('blocked', class_of(base), 1)
end
for j, f in ipairs(firings) do
  local c, words = f.c, {}
  if not c or c.state == 'broken' or c.version ~= f.version or f.to ~= '' and c.at ~= f.from then
    lines[j] = {'moved', '-'}
  elseif c.state == 'paused' and f.to ~= '' then
    lines[j] = {'paused', '-'}
  else
    local live, busy, waits = c.last ~= '' and lasts[c.last] or false, '-', false
    if live then busy = c.last end
    for a = f.first, f.first + 6 * f.n - 1, 6 do
      local id, verdict = ARGV[a], ARGV[a + 4]
      local word
      if exists[id] then
        word = 'exists'
      elseif verdict == 'missed' then
        word = 'missed'
        finish(a, 'missed', 'late')
      elseif live and (f.overlap == 'wait' or f.to == '') then
        word, waits = 'waits', true
      elseif live then
        word = 'skipped'
        finish(a, 'skipped', 'overlap')
      elseif is_workflow(ARGV[3 + ARGV[a + 2]]) then
        word = 'blocked'
        flow(a, ARGV[3 + ARGV[a + 2]]:match('^(.*):'))
      else
        word = 'scheduled'
        local lane, due = tonumber(ARGV[a + 2]), tonumber(ARGV[a + 1])
        queues[lane] = queues[lane] or {}
        table.insert(queues[lane], int(due))
        table.insert(queues[lane], id)
        if not heads[lane] or due < heads[lane] then heads[lane] = due end
        if ARGV[a + 3] ~= '|||' then
          local m = fresh(ARGV[3 + lane]:match('^(.*):'), int(due))
          m.weight, m.max_reruns, m.size = ARGV[a + 3]:match('^(.-)|(.-)|(.-)|')
          metas[#metas + 1] = id
          metas[#metas + 1] = write(m)
        end
      end
      if word == 'scheduled' or word == 'blocked' then
        c.last = id
        live = f.overlap ~= 'allow'
      end
      if word ~= 'exists' and word ~= 'waits' then
        exists[id] = true
        specs[#specs + 1] = id
        specs[#specs + 1] = ARGV[a + 5] .. stamp
      end
      words[#words + 1] = word
    end
    lines[j] = {waits and 'waits' or 'done', busy, unpack(words)}
    if f.to ~= '' then
      c.at = waits and f.hold or f.to
      c.seen = (waits or f.pending) and int(now) or ''
      local n, from, to = f.summary:match('^(%d+)|(%d+)|(%d+)$')
      if n then
        -- What goes on where the last one ended is of the same downtime.
        if c.to == f.from then
          c.missed, c.to = int(c.missed + n), to
        else
          c.missed, c.from, c.to = n, from, to
        end
      end
      local next = f.next
      if waits or f.pending then next = int(now + f.again) end
      if next == '' then
        rests[#rests + 1] = names[j]
      else
        scores[#scores + 1] = next
        scores[#scores + 1] = names[j]
        if not earliest or next + 0 < earliest then earliest = next + 0 end
      end
    end
    texts[#texts + 1] = names[j]
    texts[#texts + 1] = cursor_text(c)
  end
end

local hashes, zsets = {KEYS[3], KEYS[4], KEYS[6], KEYS[7], KEYS[9]}, {KEYS[5], KEYS[8], KEYS[10], KEYS[11]}
for lane in pairs(queues) do zsets[#zsets + 1] = KEYS[9 + lane * 3] end
for set in pairs(ended) do zsets[#zsets + 1] = KEYS[set] end
typed(hashes, zsets)
-- All checks are done; from here on it writes.
if #specs > 0 then redis.call('HSET', KEYS[3], unpack(specs)) end
if #metas > 0 then redis.call('HSET', KEYS[4], unpack(metas)) end
if #texts > 0 then redis.call('HSET', KEYS[7], unpack(texts)) end
if #scores > 0 then redis.call('ZADD', KEYS[8], unpack(scores)) end
if #rests > 0 then redis.call('ZREM', KEYS[8], unpack(rests)) end
if #needs > 0 then
  redis.call('HSET', KEYS[9], unpack(needs))
  redis.call('ZADD', KEYS[10], unpack(blocked))
  redis.call('ZADD', KEYS[11], unpack(gates))
end
local news = {}
for lane, queue in pairs(queues) do
  redis.call('ZADD', KEYS[9 + lane * 3], unpack(queue))
  if redis.call('ZADD', KEYS[5], 'LT', 'CH', int(heads[lane]), ARGV[3 + lane]) == 1 then
    news[#news + 1] = ARGV[3 + lane] .. (heads[lane] > now and '+' or '')
  end
end
for set, scored in pairs(ended) do redis.call('ZADD', KEYS[set], unpack(scored)) end
tally(KEYS[6])
news = table.concat(news, ' ')
local first = earliest and (earliest <= now or not later[2] or earliest < later[2] + 0) and 1 or 0
local kept = {}
for j, line in ipairs(lines) do kept[j] = table.concat(line, ' ') end
keep(KEYS[1], ARGV[1], news .. '|' .. first .. '|' .. table.concat(kept, ';'))
local reply = {'ok', news, first}
for _, line in ipairs(lines) do
  if line[2] == '-' then line[2] = '' end
  reply[#reply + 1] = line
end
return reply
