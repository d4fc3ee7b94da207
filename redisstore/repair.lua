-- repair: a job that is in no index, or in one that its record does not name -> where its record says; one that can't be
-- read -> failed, or, where an index says so, what it was.
-- KEYS  1 call, 2 info, 3 spec, 4 meta, 5 lanes, 6 beats, 7 counts, then places: lanes, run:<peer>, sets of ended jobs,
--       blocked; then kids, outbox
-- ARGV  1 call number, 2 term (0: an operator's), 3 how long a peer found by its runs may be silent (ms),
--       4 the place that is walked through (0: none), 5 number of places, for each:
--       'lane', its name, its base name, or 'run', peer, '', or 'done', 'state:kind', state, or 'blocked', '', '';
--       then for each job: id, place where it would wait by its spec (0 unknown), place of failed jobs of its kind,
--       base name of its lane, due (ms) by its spec, SHA1 of its spec if that can't be read, else '', and
--       'weight|max_reruns|size' (each may be empty) if by its spec it was blocked at first, else ''
-- Reply {'ok', id or '', place or 0, what was wrong, what was done, ...}, {'deposed'}, {'superseded'}
if ARGV[2] ~= '0' and deposed(KEYS[2], ARGV[2]) then return {'deposed'} end
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
local reply = {'ok'}
if answer then
  for word in answer:gmatch('[^\n]*') do
    if word ~= '' then reply[#reply + 1] = word ~= '-' and word or '' end
  end
  return reply
end

local walked, places, at = tonumber(ARGV[4]), {}, {}
local zsets = {KEYS[5], KEYS[6]}
for p = 1, tonumber(ARGV[5]) do
  local a = 6 + (p - 1) * 3
  places[p] = {key = KEYS[7 + p], sort = ARGV[a], name = ARGV[a + 1], base = ARGV[a + 2]}
  at[ARGV[a] .. ' ' .. ARGV[a + 1]] = p
  zsets[p + 2] = KEYS[7 + p]
end
zsets[#zsets + 1] = KEYS[#KEYS]
typed({KEYS[3], KEYS[4], KEYS[7], KEYS[#KEYS - 1]}, zsets)
local function score(p, id) return p > 0 and redis.call('ZSCORE', places[p].key, id) or nil end

local function positive(value) return int(math.max(plain(value) + 0, 1)) end

local ended = {succeeded = true, failed = true, missed = true, unreachable = true, cancelled = true, skipped = true}
-- index names where a record belongs; nil if in none that this script knows.
local function index(m)
  if m.state == 'scheduled' then return 'lane ' .. m.lane .. (tonumber(m.runs) > 0 and ':again' or ':new') end
  if m.state == 'running' then return 'run ' .. m.peer end
  if m.state == 'blocked' then return 'blocked ' end
  if ended[m.state] then return 'done ' .. m.state .. ':' .. m.lane:match('^[^:]*') end
end

-- What is to be written, gathered by the checks.
local records, puts, takes, touched, peers, words, gone = {}, {}, {}, {}, {}, {}, {}
local function report(id, p, what, did)
  for _, word in ipairs({id == '' and '-' or id, int(p), what, did}) do words[#words + 1] = word end
end
local function record(id, m)
  records[#records + 1] = id
  records[#records + 1] = write(m)
end
local function put(p, value, id)
  puts[p] = puts[p] or {}
  table.insert(puts[p], value)
  table.insert(puts[p], id)
  touched[p] = true
  if places[p].sort == 'run' then peers[places[p].name] = true end
end
local function take(p, id)
  takes[p] = takes[p] or {}
  table.insert(takes[p], id)
  touched[p] = true
end

local begin = 6 + #places * 3
local ids = {}
for i = begin, #ARGV, 7 do ids[#ids + 1] = ARGV[i] end
local metas = #ids > 0 and redis.call('HMGET', KEYS[4], unpack(ids)) or {}
for j, id in ipairs(ids) do
  local i = begin + (j - 1) * 7
  local home, failed, base, due = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4]
  local m, why
  if metas[j] then m, why = read(metas[j]) end
  if m and not index(m) then m, why = nil, 'corrupt' end
  local spec = redis.call('HSTRLEN', KEYS[3], id) > 0
  -- A spec that could not be read may have made room for another since.
  local bad = ARGV[i + 5] ~= '' and spec and redis.call('HGET', KEYS[3], id)
  bad = bad and redis.sha1hex(bad) == ARGV[i + 5]

  -- aside ends a job that can't be run; from is the index it is in, or nil.
  local function aside(from, what)
    -- A lane knows its jobs' kind, whatever their specs say.
    local kind = from and places[from].sort == 'lane' and places[from].base:match('^[^:]*')
    if kind and at['done failed:' .. kind] then base, failed = places[from].base, at['done failed:' .. kind] end
    local f = m or fresh(base, int(now))
    if not m then f.runs = '0' end
    f.state, f.reason, f.ended, f.lane = 'failed', 'corrupt', int(now), base
    record(id, f)
    if from then take(from, id) end
    put(failed, int(now), id)
    gone[#gone + 1] = id
    add('failed', base:match('^[^:]*:%d'), 1)
    if from and places[from].sort == 'blocked' then add('blocked', base:match('^[^:]*:%d'), -1) end
    report(id, from or 0, what, 'it is set aside as failed')
  end

  if why == 'newer' then
    -- Left alone.
  elseif m then
    local p = at[index(m)]
    local has = p and score(p, id)
    local stray = walked > 0 and walked ~= p and score(walked, id) and true or false
    -- Without p it has moved since its place was read; the next walk finds it.
    if p and m.state == 'scheduled' and (bad or not spec) then
      aside(has and p or nil, spec and 'its spec can not be read' or 'its spec is missing')
      if stray then take(walked, id) end
    elseif p then
      local value = m.state == 'running' and m.epoch or m.state == 'scheduled' and m.due or m.state == 'blocked' and start_by(m)
        or tonumber(m.ended) and m.ended or int(now)
      if not has then
        put(p, value, id)
        report(id, p, 'it is ' .. m.state .. ' and was not in its index', 'it is put there')
      elseif m.state == 'running' and has + 0 ~= tonumber(m.epoch) then
        put(p, value, id)
        report(id, p, 'its index has another epoch', 'the record decides')
      elseif (m.state == 'blocked' or ended[m.state] and tonumber(m.ended)) and has + 0 ~= tonumber(value) then
        -- A lane's score is when its job is due, whatever the record says.
        put(p, value, id)
        report(id, p, 'its index has another time', 'the record decides')
      elseif m.state == 'running' and not peers[m.peer] and not redis.call('ZSCORE', KEYS[6], m.peer) then
        -- Whoever holds runs beats; else nobody would take them from it if it were silent.
        peers[m.peer] = true
        report(id, p, 'its peer was not among those that beat', 'it is, until it is silent for too long')
      end
      if stray then
        take(walked, id)
        report(id, walked, 'it is ' .. m.state .. ' and was in this index', 'it is taken out')
      end
    end
  else
    -- No record that can be read. One that is missing is right where the lane of its spec has it, but not that of a job
    -- that was blocked: in that lane it would start before its parents have ended.
    local from
    local simple, family = not why and spec and not bad, ARGV[i + 6] ~= ''
    if not (simple and not family and (walked == 0 or walked == home) and score(home, id)) then
      for _, sort in ipairs({'run', 'done', 'lane', 'blocked'}) do
        for p, place in ipairs(places) do
          if not from and place.sort == sort and score(p, id) then from = p end
        end
      end
      local what = why and 'its record can not be read' or 'its record is missing'
      local place = from and places[from]
      local barred = from and place.sort == 'blocked'
      if simple and family and (not from or barred) then
        local f = fresh(base, due)
        f.state = 'blocked'
        f.weight, f.max_reruns, f.size = ARGV[i + 6]:match('^(%d*)|(%d*)|(%d*)$')
        record(id, f)
        if not from then put(home, start_by(f), id) end
        report(id, home, what, 'it is written anew: it is blocked')
      elseif barred and not spec and not why then
        take(from, id)
        report(id, from, 'there is neither spec nor record', 'it is taken out')
      elseif barred and simple then
        take(from, id)
        put(home, due, id)
        report(id, from, what, 'by its spec it waits for nobody: it waits in its lane')
      elseif barred then
        aside(from, why and what or 'its spec can not be read')
      elseif not from then
        if simple and home > 0 then
          put(home, due, id)
          report(id, home, 'it has no record and was in no index', 'it waits')
        elseif why or bad then
          aside(nil, why and what or 'its spec can not be read')
        end
      elseif place.sort == 'lane' and simple then
        -- In another lane than that of its spec, which must have been named by a record.
        if from ~= home then
          local f = fresh(place.base, plain(score(from, id)))
          if place.name:find(':again$') then f.runs = '1' end
          record(id, f)
          report(id, from, what, 'it is written anew: it waits')
        end
      elseif place.sort == 'lane' then
        aside(from, why and what or spec and 'its spec can not be read' or 'there is neither spec nor record')
      else
        local f = fresh(base, int(now))
        f.runs, f.reason = '1', 'corrupt'
        if place.sort == 'run' then
          -- So what its peer settles is taken, and if the peer is silent, the run is reaped.
          f.state, f.epoch, f.peer, f.started, f.reason = 'running', positive(score(from, id)), place.name, int(now), ''
          peers[place.name] = true
        else
          f.state, f.ended = place.base, positive(score(from, id))
          f.lane = place.name:match(':(.*)$') .. base:match('^[^:]*(:.*)$')
        end
        record(id, f)
        report(id, from, what, 'it is written anew: it is ' .. f.state)
        if home > 0 and home ~= from and score(home, id) then take(home, id) end
      end
      if walked > 0 and places[walked].sort == 'blocked' and from ~= walked and score(walked, id) and walked ~= home then take(walked, id) end
    end
  end
end
-- The index of lanes must not name any of them too late, or not at all.
for p, place in ipairs(places) do
  if place.sort == 'lane' then
    local head, named = redis.call('ZRANGE', place.key, 0, 0, 'WITHSCORES')[2], redis.call('ZSCORE', KEYS[5], place.name)
    if head and (not named or named + 0 > head + 0) then
      report('', p, 'the index of lanes named it too late or not at all', 'put right')
      touched[p] = true
    elseif (head and head + 0) ~= (named and named + 0) then
      touched[p] = true
    end
  end
end

-- All checks are done; from here on it writes.
if #records > 0 then redis.call('HSET', KEYS[4], unpack(records)) end
for p, out in pairs(takes) do redis.call('ZREM', places[p].key, unpack(out)) end
for p, come in pairs(puts) do redis.call('ZADD', places[p].key, unpack(come)) end
for p in pairs(touched) do
  if places[p].sort == 'lane' then first(KEYS[5], places[p].name, places[p].key) end
end
for peer in pairs(peers) do redis.call('ZADD', KEYS[6], 'NX', int(now + ARGV[3]), peer) end
tally(KEYS[7])
bequeath(gone)
-- Where nothing was found there is nothing to remember.
if #words > 0 then keep(KEYS[1], ARGV[1], table.concat(words, '\n')) end
for _, word in ipairs(words) do reply[#reply + 1] = word ~= '-' and word or '' end
return reply
