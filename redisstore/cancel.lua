-- cancel: blocked or scheduled -> cancelled; running -> running, with the mark by which its peer ends the handler's context
-- and by which nothing starts it again. A job that is marked or cancelled already stays as it is. A workflow that is blocked
-- gets the mark, too; its jobs are told by way of the outbox.
-- KEYS  1 call, 2 spec, 3 meta, 4 lanes, 5 counts, 6 blocked, then for each lane: the lane, the set of cancelled jobs;
--       then kids, outbox
-- ARGV  1 call number, 2 number of lanes, for each: name, base name,
--       then for each job, no id twice: id, lane (its place) in which it waits or would; 0: no such job was found
-- Reply {'ok', for each job: word, its state, base name of its lane, the peer that runs it; ...}, {'superseded'}
--       word: done; refused, since it has ended otherwise; none, there is no such job; newer, its record can't be read here;
--       moved, it does not wait where said. Only done has changed anything.
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
local reply = {'ok'}
if answer then
  for word in answer:gmatch('[^ ]+') do reply[#reply + 1] = word ~= '-' and word or '' end
  return reply
end

local begin = 3 + 2 * ARGV[2]
local ids = {}
for i = begin, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
local metas = redis.call('HMGET', KEYS[3], unpack(ids))

local fields, uneven, free, flows = {}, {}, {}, {}
local words = {}
for j, id in ipairs(ids) do
  local lane = tonumber(ARGV[begin + j * 2 - 1])
  local name, base = ARGV[1 + 2 * lane], ARGV[2 + 2 * lane]
  local m, why
  if metas[j] then m, why = read(metas[j]) end
  local word, peer = 'done', ''
  if not metas[j] then
    -- It waits in its lane, or does not exist.
    local due = lane > 0 and redis.call('ZSCORE', KEYS[5 + 2 * lane], id)
    if due then
      m = fresh(base, plain(due))
    elseif redis.call('HEXISTS', KEYS[2], id) == 1 then
      word = 'moved'
    else
      word = 'none'
    end
  elseif why then
    word = why
  end
  if m then
    if m.state == 'running' then
      peer = m.peer
      if not marked(m) then
        m.reason = 'cancel'
        fields[#fields + 1] = id
        fields[#fields + 1] = write(m)
      end
    elseif m.state == 'blocked' and is_workflow(m.lane) then
      m.reason = 'cancel'
      fields[#fields + 1] = id
      fields[#fields + 1] = write(m)
      flows[#flows + 1] = id .. '#'
    elseif m.state == 'scheduled' or m.state == 'blocked' then
      if lane == 0 or waits(m) ~= name then
        word = 'moved'
      else
        if m.state == 'blocked' then
          free[#free + 1] = id
          add('blocked', class_of(m.lane), -1)
        end
        m.state, m.reason, m.ended = 'cancelled', 'cancel', int(now)
        fields[#fields + 1] = id
        fields[#fields + 1] = write(m)
        uneven[lane] = uneven[lane] or {}
        table.insert(uneven[lane], id)
        add('cancelled', class_of(m.lane), 1)
      end
    elseif m.state ~= 'cancelled' then
      word = 'refused'
    end
  end
  for _, value in ipairs({word, m and m.state or '', m and m.lane or '', peer}) do
    words[#words + 1] = value ~= '' and value or '-'
    reply[#reply + 1] = value
  end
end

typed({KEYS[5], KEYS[#KEYS - 1]}, {KEYS[4], KEYS[6], KEYS[#KEYS]})
if #fields > 0 then redis.call('HSET', KEYS[3], unpack(fields)) end
local out = {}
for lane, gone in pairs(uneven) do
  redis.call('ZREM', KEYS[5 + 2 * lane], unpack(gone))
  local scores = {}
  for _, id in ipairs(gone) do
    scores[#scores + 1] = int(now)
    scores[#scores + 1] = id
    out[#out + 1] = id
  end
  redis.call('ZADD', KEYS[6 + 2 * lane], unpack(scores))
  first(KEYS[4], ARGV[1 + 2 * lane], KEYS[5 + 2 * lane])
end
if #free > 0 then redis.call('ZREM', KEYS[6], unpack(free)) end
tally(KEYS[5])
for _, flow in ipairs(flows) do out[#out + 1] = flow end
bequeath(out)
keep(KEYS[1], ARGV[1], table.concat(words, ' '))
return reply
