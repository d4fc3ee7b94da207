-- release: blocked -> scheduled when all that a job waits for has happened, skipped when something of it has not; skipped
-- for that reason -> blocked or scheduled when it has after all; a job whose gate is never opened -> cancelled.
-- What a job waits for stands in needs: child|parent -> how, as in needs.lua, with a ! before it once the parent has ended
-- otherwise; child| the same for its gate; child|| -> how many of these there are, and how many of them have a !. What
-- has happened is removed, so that it counts once, however often it is told. It counts also where the job itself is
-- still on its way; then the gate is closed.
-- KEYS  1 call, 2 meta, 3 needs, 4 blocked, 5 gates, 6 lanes, 7 counts, then for each lane: the lane, the sets of skipped
--       and of cancelled jobs; then kids, outbox
-- ARGV  1 call number, 2 number of lanes, for each: name, base name,
--       then for each edge: child, lane (its place) in which it would wait, 0: no such job was found; parent ('' for the
--       gate), its state ('open' or 'void' for the gate)
-- Reply {'ok', news (as of enqueue), number of jobs that ended and have children, for each edge: word, base name, ...},
--       {'superseded'}
--       word: scheduled, skipped, blocked, cancelled: what became of the job; none: nothing; moved: it is in
--       another lane, nothing was done
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
for i = begin, #ARGV, 4 do
  local id = ARGV[i]
  if not seen[id] then
    seen[id] = {id = id}
    children[#children + 1] = id
  end
  fields[#fields + 1] = id .. '|' .. ARGV[i + 2]
end
local metas, hows = redis.call('HMGET', KEYS[2], unpack(children)), redis.call('HMGET', KEYS[3], unpack(fields))
local totals = {}
for j, id in ipairs(children) do totals[j] = id .. '||' end
totals = redis.call('HMGET', KEYS[3], unpack(totals))
for j, id in ipairs(children) do
  local c = seen[id]
  if metas[j] then c.m = read(metas[j]) end
  local pending, violated = (totals[j] or ''):match('^(%d+),(%d+)$')
  c.pending, c.violated = tonumber(pending or 0), tonumber(violated or 0)
end

-- fits tells whether a parent that is in this state is what the child waits for; nil: it has not ended.
local function fits(how, state)
  if how == 'g' then return state == 'open' or state == 'void' end
  if how == 'a' then return true end
  return (state == 'succeeded') == (how == 's')
end

local words, drop, mark = {}, {}, {}
for i = begin, #ARGV, 4 do
  local c, n = seen[ARGV[i]], (i - begin) / 4 + 1
  local lane, parent, state = tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  local field, how = fields[n], hows[n]
  local word = 'none'
  if how and c.m and (c.m.state == 'blocked' or c.m.state == 'skipped') and (lane == 0 or ARGV[2 + 2 * lane] ~= c.m.lane) then
    word = 'moved'
  elseif how then
    local before = how:sub(1, 1) == '!'
    local plain = before and how:sub(2) or how
    c.lane, c.touched = lane, true
    if fits(plain, state) then
      drop[#drop + 1] = field
      c.pending = c.pending - 1
      if before then c.violated = c.violated - 1 end
      if parent == '' then
        c.open = true
        c.void = state == 'void'
      end
    elseif not before then
      mark[#mark + 1] = field
      mark[#mark + 1] = '!' .. plain
      c.violated = c.violated + 1
    end
    hows[n] = nil
    word = '' -- told below, when all is counted
  end
  words[n] = {word, ARGV[i]}
end

-- What becomes of each.
local records, news, heads = {}, {}, {}
local puts, takes, unblock, block, opened, ended, gone = {}, {}, {}, {}, {}, {}, {}
local function to(set, score, id)
  puts[set] = puts[set] or {}
  table.insert(puts[set], score)
  table.insert(puts[set], id)
end
local function set_of(lane, state) return 7 + (lane - 1) * 3 + ({skipped = 2, cancelled = 3})[state] end
for _, id in ipairs(children) do
  local c = seen[id]
  local m = c.m
  if c.touched then
    if c.open then opened[#opened + 1] = id end
    if c.pending > 0 then
      mark[#mark + 1] = id .. '||'
      mark[#mark + 1] = int(c.pending) .. ',' .. int(c.violated)
    else
      drop[#drop + 1] = id .. '||'
    end
    local gated = not c.open and redis.call('HEXISTS', KEYS[3], id .. '|') == 1
    if m and not gated and (m.state == 'blocked' or m.state == 'skipped') then
      local was, becomes = m.state, 'blocked'
      if c.void then
        becomes = 'cancelled'
      elseif c.violated > 0 then
        becomes = 'skipped'
      elseif c.pending == 0 then
        becomes = 'scheduled'
      end
      c.word = becomes
      if becomes ~= was then
        local class = class_of(m.lane)
        if was == 'blocked' then
          unblock[#unblock + 1] = id
          add('blocked', class, -1)
        else
          local set = set_of(c.lane, 'skipped')
          takes[set] = takes[set] or {}
          table.insert(takes[set], id)
          add('skipped', class, -1)
        end
        m.state, m.reason, m.ended = becomes, '', ''
        if becomes == 'scheduled' then
          if m.due + 0 <= 0 then m.due = int(now) end
          local due = tonumber(m.due)
          to(8 + (c.lane - 1) * 3, m.due, id)
          if not heads[c.lane] or due < heads[c.lane] then heads[c.lane] = due end
        elseif becomes == 'blocked' then
          block[#block + 1] = start_by(m)
          block[#block + 1] = id
          add('blocked', class, 1)
        else
          m.ended = int(now)
          if becomes == 'skipped' then m.reason = 'parent' elseif becomes == 'cancelled' then m.reason = 'gate' end
          to(set_of(c.lane, becomes), int(now), id)
          ended[#ended + 1] = id
          add(becomes, class, 1)
        end
        records[#records + 1] = id
        records[#records + 1] = write(m)
      end
    end
  end
end

local hashes, zsets = {KEYS[2], KEYS[3], KEYS[7], KEYS[#KEYS - 1]}, {KEYS[4], KEYS[5], KEYS[6], KEYS[#KEYS]}
for set in pairs(puts) do zsets[#zsets + 1] = KEYS[set] end
for set in pairs(takes) do zsets[#zsets + 1] = KEYS[set] end
typed(hashes, zsets)
-- All checks are done; from here on it writes.
if #drop > 0 then redis.call('HDEL', KEYS[3], unpack(drop)) end
if #mark > 0 then redis.call('HSET', KEYS[3], unpack(mark)) end
if #records > 0 then redis.call('HSET', KEYS[2], unpack(records)) end
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
local heirs = bequeath(ended)
local text, reply = {}, {'ok', table.concat(news, ' '), heirs}
for _, word in ipairs(words) do
  local c = seen[word[2]]
  local one, base = word[1] == '' and (c.word or 'none') or word[1], c.m and c.m.lane or ''
  reply[#reply + 1] = one
  reply[#reply + 1] = base
  text[#text + 1] = one .. ' ' .. (base == '' and '-' or base)
end
keep(KEYS[1], ARGV[1], reply[2] .. '|' .. heirs .. '|' .. table.concat(text, ' '))
return reply
