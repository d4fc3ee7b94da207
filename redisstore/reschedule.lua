-- reschedule: scheduled -> scheduled, with another due time or in the lane of another priority.
-- KEYS  1 call, 2 spec, 3 meta, 4 lanes, then for each move: the lane in which the jobs wait, the lane in which they are to
-- ARGV  1 call number, 2 due ('' as it is, '@' ms, or '+' ms from now), 3 number of moves, for each: name and base name of
--       the one lane, of the other,
--       then for each job, no id twice: id, move (its place); 0: it was not found to wait
-- Reply {'ok', news (as of enqueue), for each job: word, its state, base name of its lane, ''; ...}, {'superseded'}
--       word: done; refused, since it does not wait; none, there is no such job; newer or corrupt, its record can't be read;
--       moved, it does not wait where said. Only done has changed anything.
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
if answer then
  local news, words = answer:match('^(.*)|(.*)$')
  local reply = {'ok', news}
  for word in words:gmatch('[^ ]+') do reply[#reply + 1] = word ~= '-' and word or '' end
  return reply
end

local due = ARGV[2]
if due:sub(1, 1) == '@' then due = int(due:sub(2) + 0) elseif due ~= '' then due = int(now + due:sub(2)) end
local begin = 4 + 4 * ARGV[3]
local ids = {}
for i = begin, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
local metas = redis.call('HMGET', KEYS[3], unpack(ids))

local fields, moves = {}, {}
local words, news, reply = {}, {}, {'ok', ''}
for j, id in ipairs(ids) do
  local move = tonumber(ARGV[begin + j * 2 - 1])
  local a = 4 * move
  local m, why
  if metas[j] then m, why = read(metas[j]) end
  local word, had = 'done', nil
  if why then
    word = why
  elseif m and m.state ~= 'scheduled' then
    word = 'refused'
  elseif move == 0 then
    word = 'moved'
    if not m and redis.call('HEXISTS', KEYS[2], id) == 0 then word = 'none' end
  else
    -- The lane's score is when it is due, whatever the record says.
    had = redis.call('ZSCORE', KEYS[3 + 2 * move], id)
    if m and waits(m) ~= ARGV[a] or not had then
      word = 'moved'
      if not m and redis.call('HEXISTS', KEYS[2], id) == 0 then word = 'none' end
    end
  end
  if word == 'done' then
    m = m or fresh(ARGV[a + 1], '')
    m.lane, m.due = ARGV[a + 3], due
    if due == '' then m.due = plain(had) end
    fields[#fields + 1] = id
    fields[#fields + 1] = write(m)
    moves[move] = moves[move] or {ids = {}, scores = {}}
    table.insert(moves[move].ids, id)
    table.insert(moves[move].scores, m.due)
    table.insert(moves[move].scores, id)
  end
  for _, value in ipairs({word, m and m.state or '', m and m.lane or '', ''}) do
    words[#words + 1] = value ~= '' and value or '-'
    reply[#reply + 1] = value
  end
end

if #fields > 0 then redis.call('HSET', KEYS[3], unpack(fields)) end
for move, jobs in pairs(moves) do
  local from, to, a = KEYS[3 + 2 * move], KEYS[4 + 2 * move], 4 * move
  redis.call('ZREM', from, unpack(jobs.ids))
  redis.call('ZADD', to, unpack(jobs.scores))
  local earliest = redis.call('ZRANGE', to, 0, 0, 'WITHSCORES')[2]
  if redis.call('ZADD', KEYS[4], 'LT', 'CH', int(earliest + 0), ARGV[a + 2]) == 1 then
    news[#news + 1] = ARGV[a + 2] .. (earliest + 0 > now and '+' or '')
  end
  first(KEYS[4], ARGV[a], from)
end
reply[2] = table.concat(news, ' ')
keep(KEYS[1], ARGV[1], reply[2] .. '|' .. table.concat(words, ' '))
return reply
