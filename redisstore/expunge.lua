-- expunge: what is left of a submission that was given up: blocked or cancelled jobs that were never started -> nothing. Moves
-- no other job. Sent twice, the second finds it done.
-- KEYS  1 spec, 2 meta, 3 result, 4 errors, 5 unique, 6 counts, 7 needs, 8 blocked, then for each kind the set of cancelled
--       jobs; then kids, outbox
-- ARGV  1 who has not told what the jobs wait for, 0: whoever has; then for each job: id, its kind (its place)
-- Reply {'ok'}
local ids, sums = {}, {}
for i = 2, #ARGV, 2 do
  ids[#ids + 1] = ARGV[i]
  sums[#sums + 1] = ARGV[i] .. '||'
end
local metas, needs = redis.call('HMGET', KEYS[2], unpack(ids)), redis.call('HMGET', KEYS[7], unpack(sums))
local sets, zsets, free = {}, {KEYS[8]}, {}
for j, id in ipairs(ids) do
  local set, m = tonumber(ARGV[1 + j * 2]), metas[j] and read(metas[j])
  if m and (m.state == 'cancelled' or m.state == 'blocked') and m.runs == '0' and totals(needs[j] or '').by ~= ARGV[1] then
    local gone = sets[set]
    if not gone then
      gone = {ids = {}, classes = {}, runs = {}, slots = {}}
      sets[set] = gone
      zsets[#zsets + 1] = KEYS[8 + set]
    end
    local class = class_of(m.lane)
    if m.state == 'blocked' then
      free[#free + 1] = id
      add('blocked', class, -1)
    else
      gone.classes[class] = (gone.classes[class] or 0) + 1
    end
    gone.ids[#gone.ids + 1] = id
  end
end
typed({KEYS[1], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]}, zsets)
for set, gone in pairs(sets) do
  forget(KEYS[8 + set], 'cancelled', gone, KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
  for _, id in ipairs(gone.ids) do redis.call('HDEL', KEYS[7], id .. '|', id .. '||') end
end
if #free > 0 then redis.call('ZREM', KEYS[8], unpack(free)) end
tally(KEYS[6])
return {'ok'}
