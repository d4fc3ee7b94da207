-- requeue: finished -> scheduled, due now, as if it had not failed yet. It takes its unique slot again.
-- KEYS  1 call, 2 spec, 3 meta, 4 lanes, 5 counts, 6 result, 7 unique, 8 errors, then for each target: the lane,
--       the set of ended jobs
-- ARGV  1 call number, 2 number of targets, for each: name of the lane, state that the jobs are in,
--       then for each job, no id twice: id, target (its place); 0: it was not found to have ended
-- Reply {'ok', news (as of enqueue), for each job: word, its state, base name of its lane, id of who holds its slot; ...}, {'superseded'}
--       word: done; refused, since it has not ended; taken, its slot is; none, there is no such job; newer or corrupt, its
--       record can't be read; moved, it is not in the set said. Only done has changed anything.
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
if answer then
  local news, words = answer:match('^(.*)|(.*)$')
  local reply = {'ok', news}
  for word in words:gmatch('[^ ]+') do reply[#reply + 1] = word ~= '-' and word or '' end
  return reply
end

local begin = 3 + 2 * ARGV[2]
local ids = {}
for i = begin, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
local metas = redis.call('HMGET', KEYS[3], unpack(ids))

local fields, done, moves, slots, runs = {}, {}, {}, {}, {}
local words, news, reply = {}, {}, {'ok', ''}
for j, id in ipairs(ids) do
  local target = tonumber(ARGV[begin + j * 2 - 1])
  local m, why
  if metas[j] then m, why = read(metas[j]) end
  local word, state, holds = 'done', m and m.state or '', ''
  if not metas[j] then
    word, state = 'none', ''
    if redis.call('HEXISTS', KEYS[2], id) == 1 then word, state = 'refused', 'scheduled' end
  elseif why then
    word = why
  elseif m.state == 'scheduled' or m.state == 'blocked' or m.state == 'running' then
    word = 'refused'
  elseif target == 0 or waits(m) ~= ARGV[1 + 2 * target] or m.state ~= ARGV[2 + 2 * target] then
    word = 'moved'
  else
    local till, lasts, slot = slot_of(m.unique)
    if slot then
      if slots[slot] then
        holds, state = slots[slot].id, 'scheduled'
      else
        local who, its = holder(KEYS[7], KEYS[2], KEYS[3], slot)
        if who and who ~= id then holds, state = who, its end
      end
      if holds ~= '' then
        word = 'taken'
      else
        slots[slot] = {id = id, value = take(id, till, lasts, m.runs)}
      end
    end
  end
  if word == 'done' then
    add(m.state, class_of(m.lane), -1)
    if m.state == 'succeeded' then
      -- So far, the run stood in the record alone.
      runs[#runs + 1] = int((m.runs - 1) % 10) .. '|' .. id
      runs[#runs + 1] = m.ended .. '|' .. m.epoch .. '|' .. m.peer .. '|succeed||'
    end
    m.state, m.reason, m.ended, m.due, m.fails, m.reruns = 'scheduled', 'requeue', '', int(now), '0', '0'
    state = m.state
    fields[#fields + 1] = id
    fields[#fields + 1] = write(m)
    done[#done + 1] = id
    local move = moves[target]
    if not move then
      move = {ids = {}, scores = {}}
      moves[target] = move
    end
    table.insert(move.ids, id)
    table.insert(move.scores, int(now))
    table.insert(move.scores, id)
  end
  for _, value in ipairs({word, state, m and m.lane or '', holds}) do
    words[#words + 1] = value ~= '' and value or '-'
    reply[#reply + 1] = value
  end
end

if #done > 0 then
  redis.call('HSET', KEYS[3], unpack(fields))
  redis.call('HDEL', KEYS[6], unpack(done))
  if #runs > 0 then redis.call('HSET', KEYS[8], unpack(runs)) end
  for slot, job in pairs(slots) do redis.call('HSET', KEYS[7], slot, job.value) end
  for target, move in pairs(moves) do
    redis.call('ZREM', KEYS[8 + 2 * target], unpack(move.ids))
    redis.call('ZADD', KEYS[7 + 2 * target], unpack(move.scores))
    if redis.call('ZADD', KEYS[4], 'LT', 'CH', int(now), ARGV[1 + 2 * target]) == 1 then
      news[#news + 1] = ARGV[1 + 2 * target]
    end
  end
  tally(KEYS[5])
end
reply[2] = table.concat(news, ' ')
keep(KEYS[1], ARGV[1], reply[2] .. '|' .. table.concat(words, ' '))
return reply
