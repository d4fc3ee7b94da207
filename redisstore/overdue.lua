-- overdue: the edge miss for jobs that are blocked: blocked and past its time -> missed.
-- KEYS  1 call, 2 meta, 3 info, 4 blocked, 5 counts, then for each kind the set of missed jobs; then kids, outbox
-- ARGV  1 call number, 2 term, then for each job: id, its kind (its place), 0: it has no record that can be read
-- Reply {'ok', id, state, base name of its lane, ...}, {'deposed'}, {'superseded'}
if deposed(KEYS[3], ARGV[2]) then return {'deposed'} end
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
local reply = {'ok'}
if answer then
  for word in answer:gmatch('%S+') do reply[#reply + 1] = word end
  return reply
end

local ids = {}
for i = 3, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
local metas, scores = redis.call('HMGET', KEYS[2], unpack(ids)), redis.call('ZMSCORE', KEYS[4], unpack(ids))
local records, leave, missed, sets = {}, {}, {}, {}
for j, id in ipairs(ids) do
  local set, m, why = tonumber(ARGV[2 + j * 2]), nil, nil
  if metas[j] then m, why = read(metas[j]) end
  if scores[j] and scores[j] + 0 < now and why ~= 'newer' then
    if not m or m.state ~= 'blocked' then
      leave[#leave + 1] = id -- its record places it elsewhere
    elseif set > 0 then
      m.state, m.reason, m.ended = 'missed', 'grace', int(now)
      records[#records + 1] = id
      records[#records + 1] = write(m)
      sets[set] = sets[set] or {}
      table.insert(sets[set], int(now))
      table.insert(sets[set], id)
      leave[#leave + 1] = id
      missed[#missed + 1] = id
      add('missed', class_of(m.lane), 1)
      add('blocked', class_of(m.lane), -1)
      for _, word in ipairs({id, 'missed', m.lane}) do reply[#reply + 1] = word end
    end
  end
end
local zsets = {KEYS[4], KEYS[#KEYS]}
for set in pairs(sets) do zsets[#zsets + 1] = KEYS[5 + set] end
typed({KEYS[2], KEYS[5], KEYS[#KEYS - 1]}, zsets)
if #records > 0 then redis.call('HSET', KEYS[2], unpack(records)) end
if #leave > 0 then redis.call('ZREM', KEYS[4], unpack(leave)) end
for set, come in pairs(sets) do redis.call('ZADD', KEYS[5 + set], unpack(come)) end
tally(KEYS[5])
bequeath(missed)
keep(KEYS[1], ARGV[1], table.concat(reply, ' ', 2))
return reply
