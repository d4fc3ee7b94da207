-- release: blocked -> scheduled when all that a job waits for has happened, skipped when something of it has not; skipped
-- for that reason -> blocked or scheduled when it has, or may, after all; a job whose gate is not to be opened -> cancelled.
-- A workflow: blocked -> succeeded, failed or cancelled when all of its jobs have ended, and back when one of them is to
-- run again.
-- What a job waits for stands in needs: child|parent -> how, child| the same for its gate, child|| -> the numbers (see totals
-- in common.lua). How: s it must succeed, f not succeed, a end, c succeed unless a decision left it out, each with for how
-- long (ms) the child is kept for the peer that ran this parent; g for a gate (g0: one that repair has closed, see waits.go);
-- m for a workflow's job. Before that, a mark: ! ended otherwise, ? left out by a decision (of a workflow's job: cancelled),
-- + counts as done and may still change. Behind it, where there is or was a mark, @ and the number in kids that the parent had
-- then: what has a lower one is old. At last a # and the number of who said so (see totals).
-- What has happened as it should is removed, so that it counts once, however often it is told. It counts also where the job
-- itself is still on its way; then the gate is closed.
-- KEYS  1 call, 2 meta, 3 needs, 4 blocked, 5 gates, 6 lanes, 7 counts, then for each lane: the lane, the sets of skipped
--       and of cancelled jobs, for workflows the sets of succeeded, failed and cancelled ones; then unique, spec, kids,
--       outbox
-- ARGV  1 call number, 2 number of lanes, for each: name, base name,
--       then for each edge: child, lane (its place) in which it would wait, 0: no such job was found; parent ('' for the
--       gate), its state ('open' or 'void' for the gate; 'withdrawn' for a blocked job whose workflow is cancelled, gate or
--       none, and for a parent in that workflow that was cancelled so: the job is cancelled with it, and whatever it wanted
--       of that parent, it has not got it), its number in kids, the peer of its last run; for a gate: who must have told what
--       the job waits for, or ''
-- Reply {'ok', news (as of enqueue), number of jobs to be found in the outbox, for each edge: word, base name, peer, ...},
--       {'superseded'}
--       word: the state that the job is in now, with a < and its own number in kids behind it if it had ended and no
--       longer has; none: it means nothing to it; corrupt: what it waits for could not be read, it ends; moved: it is in
--       another lane, nothing was done
--       peer: for which a scheduled job is kept until it is due, behind that time (ms) and a colon
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
if answer then
  local news, heirs, words = answer:match('^(.*)|(%d+)|(.*)$')
  local reply = {'ok', news, tonumber(heirs)}
  for word in words:gmatch('%S+') do reply[#reply + 1] = word ~= '-' and word or '' end
  return reply
end

local lanes = tonumber(ARGV[2])
local begin = 3 + 2 * lanes
local children, seen, fields = {}, {}, {}
for i = begin, #ARGV, 6 do
  local id = ARGV[i]
  if not seen[id] then
    seen[id] = {id = id}
    children[#children + 1] = id
  end
  fields[#fields + 1] = id .. '|' .. ARGV[i + 2]
end
local metas, hows = redis.call('HMGET', KEYS[2], unpack(children)), redis.call('HMGET', KEYS[3], unpack(fields))
local names, gates = {}, {}
for j, id in ipairs(children) do
  names[j] = id .. '||'
  gates[j] = id .. '|'
end
names, gates = redis.call('HMGET', KEYS[3], unpack(names)), redis.call('HMGET', KEYS[3], unpack(gates))
for j, id in ipairs(children) do
  local c = seen[id]
  if metas[j] then c.m = read(metas[j]) end
  c.total, c.gated, c.bare = totals(names[j] or ''), gates[j], not names[j]
  c.flow = c.m and is_workflow(c.m.lane)
end

local ended = {succeeded = true, failed = true, missed = true, unreachable = true, cancelled = true, skipped = true, unchosen = true, gone = true}

-- judge returns the mark that a parent in this state gets, '-' if it is what the child waits for, '' if it has not ended, nil
-- if it says nothing.
local function judge(letter, state)
  if letter == 'g' then return (state == 'open' or state == 'void' or state == 'withdrawn') and '-' or nil end
  if state == 'withdrawn' then return '!' end
  if not ended[state] then return (state == 'scheduled' or state == 'blocked' or state == 'running') and '' or nil end
  if letter == 'm' then
    if state == 'cancelled' then return '?' end
    return (state == 'succeeded' or state == 'skipped' or state == 'unchosen' or state == 'gone') and '+' or '!'
  end
  if letter == 'a' then return '-' end
  if state == 'unchosen' then return letter == 'c' and '+' or '?' end
  return (state == 'succeeded') == (letter ~= 'f') and '-' or '!'
end

local words, values = {}, {}
local edges = 0
for i = begin, #ARGV, 6 do
  local c = seen[ARGV[i]]
  edges = edges + 1
  local lane, parent, state, at, peer = tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  local field, total = fields[edges], c.total
  -- An edge may be told twice in one call.
  local how = values[field]
  if how == nil then how = hows[edges] end
  local word = 'none'
  local withdrawn = not how and state == 'withdrawn' and parent == '' and c.m and c.m.state == 'blocked' and not c.flow
    and (peer == '' or peer == c.total.by)
  local moves = c.m and (c.m.state == 'blocked' or c.m.state == 'skipped' or c.flow)
  if (how or withdrawn) and moves and (lane == 0 or ARGV[2 + 2 * lane] ~= c.m.lane) then
    word = 'moved'
  elseif withdrawn then
    c.lane, c.touched, c.void, c.withdrawn, c.gated, word = lane, true, true, true, false, ''
  elseif how then
    local mark, letter, near, before = how:match('^([!?+]?)([sfacgm])(%d*)@?(%d*)#?%d*$')
    if letter and (#near > 9 or #before > 16) then letter = nil end
    -- What it still waits for has been counted, or the numbers are wrong.
    local marked = mark == '!' or mark == '?'
    local lost = c.bare and c.m and c.m.state == 'blocked'
    if letter == 'g' and peer ~= '' and peer ~= total.by then
      -- The gate is another one's now.
    elseif letter and letter ~= 'g' and not total.corrupt and not lost and how:match('#(%d*)$') ~= total.by then
      -- It was said by one who did not enqueue the job.
    elseif total.corrupt or lost or not letter or mark ~= '+' and total.pending < 1 or marked and total.violated < 1 then
      c.corrupt, c.touched, c.lane = true, true, lane
      if parent == '' then
        c.open, c.gated, values[field] = true, false, false
      end
      word = 'corrupt'
    else
      local now_is = judge(letter, state)
      if before ~= '' and tonumber(at) < tonumber(before) then now_is = nil end
      if now_is then
        c.lane, c.touched = lane, true
        -- Its old mark counts no longer, and its new one does.
        if mark ~= '+' then total.pending = total.pending - 1 end
        if mark == '!' or mark == '?' then total.violated = total.violated - 1 end
        if mark == '?' then total.left = total.left - 1 end
        if mark == '+' and letter == 'c' then total.out = total.out - 1 end
        if now_is == '!' or now_is == '?' or now_is == '' then total.pending = total.pending + 1 end
        if now_is == '!' or now_is == '?' then total.violated = total.violated + 1 end
        if now_is == '?' then total.left = total.left + 1 end
        if now_is == '+' and letter == 'c' then total.out = total.out + 1 end
        if now_is ~= '-' then
          values[field] = now_is .. letter .. near .. '@' .. int(tonumber(at)) .. '#' .. total.by
        else
          values[field] = false
          if letter == 'g' then
            c.open, c.gated = true, false
            c.void, c.withdrawn = state ~= 'open', state == 'withdrawn'
          else
            total.fit = true
            if near ~= '' and peer ~= '' then total.wait, total.peer = near, peer end
          end
        end
        -- Behind a gate it is to be run again, and so may be its parent: what that comes to is told before the gate opens.
        if state == 'withdrawn' and parent ~= '' and not c.gated and c.m and c.m.state == 'blocked' then c.void, c.withdrawn = true, true end
        word = '' -- told below, when all is counted
      end
    end
  end
  words[edges] = word
end

-- What becomes of each.
local records, news, heads, drop, mark = {}, {}, {}, {}, {}
local puts, takes, unblock, block, opened, told = {}, {}, {}, {}, {}, {}
local function to(set, score, id)
  puts[set] = puts[set] or {}
  table.insert(puts[set], score)
  table.insert(puts[set], id)
end
local function from(set, id)
  takes[set] = takes[set] or {}
  table.insert(takes[set], id)
end
-- Where jobs in a state stand, besides blocked.
local function set_of(c, state)
  local place = c.flow and {succeeded = 0, failed = 1, cancelled = 2} or {scheduled = 0, skipped = 1, cancelled = 2}
  return 8 + (c.lane - 1) * 3 + place[state]
end
local function outcome(c)
  local m, total = c.m, c.total
  if c.void then return 'cancelled', c.withdrawn and 'workflow' or 'gate' end
  if c.flow then
    if m.state == 'cancelled' and m.reason == 'gate' then return m.state, m.reason end
    if c.corrupt then return 'failed', 'corrupt' end
    if total.pending > total.violated then return 'blocked', m.state == 'blocked' and m.reason or '' end
    if total.violated == 0 then return 'succeeded', '' end
    if m.reason == 'cancel' then return 'cancelled', 'cancel' end
    if total.left == total.violated then return 'cancelled', 'job' end
    return 'failed', 'job'
  end
  if c.corrupt then return 'skipped', 'corrupt' end
  -- Where a decision left it out, it waits for its other parents all the same: whether one of those ended otherwise decides
  -- what becomes of its children, and they must not depend on who was first.
  if total.violated > total.left then return 'skipped', 'parent' end
  if total.pending > total.violated then return 'blocked', '' end
  if total.violated > 0 then return 'skipped', 'choice' end
  if total.out > 0 and not total.fit then return 'skipped', 'choice' end
  return 'scheduled', ''
end
for _, id in ipairs(children) do
  local c = seen[id]
  local m, total = c.m, c.total
  if c.touched then
    if c.open then opened[#opened + 1] = id end
    if c.corrupt then
      -- It never waits for anything again.
      total.pending, total.violated, total.left, total.out, total.corrupt = 1, 1, 0, 0, false
    end
    if c.corrupt and c.gated then
      -- When the gate opens, too.
      mark[#mark + 1] = id .. '||'
      mark[#mark + 1] = 'corrupt'
    elseif total.pending > 0 or total.out > 0 or c.flow then
      mark[#mark + 1] = id .. '||'
      mark[#mark + 1] = sums_of(total)
    else
      drop[#drop + 1] = id .. '||'
    end
    if m and not c.gated and (m.state == 'blocked' or m.state == 'skipped' or c.flow) then
      local was, becomes, reason = m.state, outcome(c)
      c.word = becomes
      if becomes ~= was then
        local class = class_of(m.lane)
        if was == 'blocked' then
          unblock[#unblock + 1] = id
        else
          from(set_of(c, was), id)
        end
        add(was, class, -1)
        m.state, m.reason, m.ended = becomes, reason, ''
        if becomes == 'scheduled' then
          if m.due + 0 <= 0 then
            if total.peer ~= '' then
              m.due = int(now + total.wait)
              c.peer = m.due .. ':' .. total.peer
            else
              m.due = int(now + m.due) -- somewhat earlier, for what lies on a long path
            end
          end
          local due = tonumber(m.due)
          to(set_of(c, becomes), m.due, id)
          if not heads[c.lane] or due < heads[c.lane] then heads[c.lane] = due end
        else
          add(becomes, class, 1)
          if becomes == 'blocked' then
            block[#block + 1] = start_by(m)
            block[#block + 1] = id
          else
            m.ended = int(now)
            to(set_of(c, becomes), int(now), id)
          end
        end
        -- What depends on it hears of its end, and that it is over no longer.
        if was ~= 'blocked' or m.ended ~= '' then told[#told + 1] = id end
        c.revived = was ~= 'blocked' and m.ended == ''
        records[#records + 1] = id
        records[#records + 1] = write(m)
      end
    end
  end
end
for field, value in pairs(values) do
  if value then
    mark[#mark + 1] = field
    mark[#mark + 1] = value
  else
    drop[#drop + 1] = field
  end
end

local unique, spec, kids, outbox = KEYS[#KEYS - 3], KEYS[#KEYS - 2], KEYS[#KEYS - 1], KEYS[#KEYS]
local hashes, zsets = {KEYS[2], KEYS[3], KEYS[7], unique, spec, kids}, {KEYS[4], KEYS[5], KEYS[6], outbox}
for set in pairs(puts) do zsets[#zsets + 1] = KEYS[set] end
for set in pairs(takes) do zsets[#zsets + 1] = KEYS[set] end
typed(hashes, zsets)
-- All checks are done; from here on it writes.
if #drop > 0 then redis.call('HDEL', KEYS[3], unpack(drop)) end
if #mark > 0 then redis.call('HSET', KEYS[3], unpack(mark)) end
if #records > 0 then redis.call('HSET', KEYS[2], unpack(records)) end
-- Who has ended no longer takes its unique slot again, if that is free by now.
for _, id in ipairs(children) do
  local c = seen[id]
  if c.revived then
    local till, lasts, slot = slot_of(c.m.unique)
    if slot and not holder(unique, spec, KEYS[2], slot) then redis.call('HSET', unique, slot, take(id, till, lasts, c.m.runs)) end
  end
end
if #unblock > 0 then redis.call('ZREM', KEYS[4], unpack(unblock)) end
if #block > 0 then redis.call('ZADD', KEYS[4], unpack(block)) end
if #opened > 0 then redis.call('ZREM', KEYS[5], unpack(opened)) end
for set, out in pairs(takes) do redis.call('ZREM', KEYS[set], unpack(out)) end
for set, come in pairs(puts) do redis.call('ZADD', KEYS[set], unpack(come)) end
for lane, head in pairs(heads) do
  if redis.call('ZADD', KEYS[6], 'LT', 'CH', int(head), ARGV[1 + 2 * lane]) == 1 then
    news[#news + 1] = ARGV[1 + 2 * lane] .. (head > now and '+' or '')
  end
end
tally(KEYS[7])
-- Where the gate was a workflow's, its jobs hear of it.
for _, id in ipairs(opened) do
  if not seen[id].m or seen[id].flow then told[#told + 1] = id .. '#' end
end
local heirs, numbers = bequeath(told)
local text, reply = {}, {'ok', table.concat(news, ' '), heirs}
for n, word in ipairs(words) do
  local c = seen[ARGV[begin + (n - 1) * 6]]
  if word == '' then word = (c.word or 'none') .. (c.revived and '<' .. (numbers[c.id] or '0') or '') end
  for _, value in ipairs({word, c.m and c.m.lane or '', c.peer or ''}) do
    reply[#reply + 1] = value
    text[#text + 1] = value == '' and '-' or value
  end
end
keep(KEYS[1], ARGV[1], reply[2] .. '|' .. heirs .. '|' .. table.concat(text, ' '))
return reply
