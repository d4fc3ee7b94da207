-- slots: puts unique slots right: one that a job that lives should hold and nobody holds is taken again, one of which the
-- job is gone is removed. Moves no job.
-- KEYS  1 call, 2 info, 3 spec, 4 meta, 5 unique
-- ARGV  1 call number, 2 term (0: an operator's), then for each entry: 'job', its id, ''; or 'slot', its name, what it said
-- Reply {'ok', id of the job, 'restored' or 'orphan', ...}, {'deposed'}, {'superseded'}
if ARGV[2] ~= '0' and deposed(KEYS[2], ARGV[2]) then return {'deposed'} end
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
local reply = {'ok'}
if answer then
  for word in answer:gmatch('[^\n]+') do reply[#reply + 1] = word end
  return reply
end

-- claims returns the slot that the job should hold, and what the slot would say; nothing if there is none, or if it can't
-- be known any more. It is as if taken when the job was enqueued.
local function claims(id)
  local record = redis.call('HGET', KEYS[4], id)
  local m = record and read(record)
  if not m or m.state ~= 'scheduled' and m.state ~= 'blocked' and m.state ~= 'running' then return end
  local till, lasts, slot = slot_of(m.unique)
  if not slot then return end
  local requeued = m.state == 'scheduled' and m.reason == 'requeue'
  if till == 's' and m.started ~= '' and not requeued then return end
  local value = redis.call('HGET', KEYS[5], slot)
  -- A slot that names this job says all that there is to say, also that its time is over.
  if value and value:match('^([^|]+)|[fs]|%d+|%d+$') == id or holder(KEYS[5], KEYS[3], KEYS[4], slot) then return end
  local expires = '0'
  if lasts ~= '0' then
    local spec = redis.call('HGET', KEYS[3], id)
    local stamp = spec and tonumber(spec:match('^' .. ('%d'):rep(13) .. '$', -13))
    if not stamp or stamp + lasts <= now then return end
    expires = int(stamp + lasts)
  elseif redis.call('HEXISTS', KEYS[3], id) == 0 then
    return
  end
  return slot, id .. '|' .. till .. '|' .. expires .. '|' .. (requeued and m.runs or '0')
end

local taken, gone, words = {}, {}, {}
for i = 3, #ARGV, 3 do
  if ARGV[i] == 'job' then
    local slot, value = claims(ARGV[i + 1])
    -- Of two, the first has it.
    if slot and not taken[slot] then
      taken[slot] = value
      words[#words + 1] = ARGV[i + 1]
      words[#words + 1] = 'restored'
    end
  elseif redis.call('HGET', KEYS[5], ARGV[i + 1]) == ARGV[i + 2] then
    local id = ARGV[i + 2]:match('^([^|\n]+)') or '?'
    if redis.call('HEXISTS', KEYS[3], id) == 0 and redis.call('HEXISTS', KEYS[4], id) == 0 then
      gone[#gone + 1] = ARGV[i + 1]
      words[#words + 1] = id
      words[#words + 1] = 'orphan'
    end
  end
end
typed({KEYS[5]}, {})
-- All checks are done; from here on it writes.
if #gone > 0 then redis.call('HDEL', KEYS[5], unpack(gone)) end
for slot, value in pairs(taken) do redis.call('HSET', KEYS[5], slot, value) end
-- Where nothing was found there is nothing to remember.
if #words > 0 then keep(KEYS[1], ARGV[1], table.concat(words, '\n')) end
for _, word in ipairs(words) do reply[#reply + 1] = word end
return reply
