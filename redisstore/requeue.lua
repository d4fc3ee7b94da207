-- requeue: finished -> scheduled, due now, as if it had not failed yet. It takes its unique slot again. If it is to heed its
-- parents: -> blocked, behind a gate.
-- KEYS  1 call, 2 spec, 3 meta, 4 lanes, 5 counts, 6 result, 7 unique, 8 errors, 9 needs, 10 blocked, 11 gates, then for each target:
--       the lane, the set of ended jobs; then kids, outbox
-- ARGV  1 call number, 2 '', or until when the gate may be closed (ms from now), 3 number of targets, for each: name of the lane, state that the jobs are in,
--       then for each job, no id twice: id, target (its place); 0: it was not found to have ended
-- Reply {'ok', news (as of enqueue), for each job: word, its state, base name of its lane, id of who holds its slot; ...}, {'superseded'}
--       word: done; refused, since it has not ended; workflow, which can't be; taken, its slot is; none, there is no such job; newer or corrupt, its
--       record can't be read; moved, it is not in the set said. Only done has changed anything.
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
if answer then
  local news, words = answer:match('^(.*)|(.*)$')
  local reply = {'ok', news}
  for word in words:gmatch('[^ ]+') do reply[#reply + 1] = word ~= '-' and word or '' end
  return reply
end

local heeds = ARGV[2] ~= ''
local begin = 4 + 2 * ARGV[3]
local ids, sums, own = {}, {}, {}
for i = begin, #ARGV, 2 do
  ids[#ids + 1] = ARGV[i]
  sums[#sums + 1] = ARGV[i] .. '||'
  own[#own + 1] = ARGV[i] .. '|'
end
local metas = redis.call('HMGET', KEYS[3], unpack(ids))
local needs, gated = {}, {}
if heeds then needs, gated = redis.call('HMGET', KEYS[9], unpack(sums)), redis.call('HMGET', KEYS[9], unpack(own)) end

local fields, done, moves, slots, runs = {}, {}, {}, {}, {}
local blocked, gates, waiting = {}, {}, {}
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
  elseif is_workflow(m.lane) then
    word = 'workflow'
  elseif m.state == 'scheduled' or m.state == 'blocked' or m.state == 'running' then
    word = 'refused'
  elseif target == 0 or waits(m) ~= ARGV[2 + 2 * target] or m.state ~= ARGV[3 + 2 * target] then
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
    local move = moves[target]
    if not move then
      move = {ids = {}, scores = {}}
      moves[target] = move
    end
    table.insert(move.ids, id)
    m.state, m.reason, m.ended, m.due, m.fails, m.reruns = 'scheduled', 'requeue', '', int(now), '0', '0'
    if heeds then
      local total = totals(needs[j] or '')
      if not gated[j] then total.pending = total.pending + 1 end
      m.state, m.due = 'blocked', '0'
      blocked[#blocked + 1] = start_by(m)
      blocked[#blocked + 1] = id
      gates[#gates + 1] = int(now + ARGV[2])
      gates[#gates + 1] = id
      for _, v in ipairs({id .. '|', 'g', id .. '||', sums_of(total)}) do waiting[#waiting + 1] = v end
      add('blocked', class_of(m.lane), 1)
    else
      table.insert(move.scores, int(now))
      table.insert(move.scores, id)
    end
    state = m.state
    fields[#fields + 1] = id
    fields[#fields + 1] = write(m)
    done[#done + 1] = id
  end
  for _, value in ipairs({word, state, m and m.lane or '', holds}) do
    words[#words + 1] = value ~= '' and value or '-'
    reply[#reply + 1] = value
  end
end

typed({KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[#KEYS - 1]}, {KEYS[4], KEYS[10], KEYS[11], KEYS[#KEYS]})
if #done > 0 then
  redis.call('HSET', KEYS[3], unpack(fields))
  redis.call('HDEL', KEYS[6], unpack(done))
  if #runs > 0 then redis.call('HSET', KEYS[8], unpack(runs)) end
  if #blocked > 0 then
    redis.call('ZADD', KEYS[10], unpack(blocked))
    redis.call('ZADD', KEYS[11], unpack(gates))
    redis.call('HSET', KEYS[9], unpack(waiting))
  end
  for slot, job in pairs(slots) do redis.call('HSET', KEYS[7], slot, job.value) end
  for target, move in pairs(moves) do
    redis.call('ZREM', KEYS[11 + 2 * target], unpack(move.ids))
    if #move.scores > 0 then
      redis.call('ZADD', KEYS[10 + 2 * target], unpack(move.scores))
      if redis.call('ZADD', KEYS[4], 'LT', 'CH', int(now), ARGV[2 + 2 * target]) == 1 then
        news[#news + 1] = ARGV[2 + 2 * target]
      end
    end
  end
  tally(KEYS[5])
  -- Those that wait for its end hear that it is over no longer.
  bequeath(done)
end
reply[2] = table.concat(news, ' ')
keep(KEYS[1], ARGV[1], reply[2] .. '|' .. table.concat(words, ' '))
return reply
