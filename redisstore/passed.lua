-- passed: how far the children of parents in the outbox have been told. Moves no job. Sent twice, the second finds it done.
-- KEYS  1 kids, 2 outbox
-- ARGV  for each parent: id, its number in kids, the last child that was told before, the last one now, 1 if that was all
-- Reply {'ok', 1 if there is more in the outbox}
for i = 1, #ARGV, 5 do
  local parent = ARGV[i]
  local number, cursor = (redis.call('HGET', KEYS[1], parent) or ''):match('^(%d+)|(.*)$')
  -- If it has been requeued and has ended again, it begins anew. If it is not in the outbox, another has told all meanwhile.
  if (number or '0') == ARGV[i + 1] and (cursor or '') == ARGV[i + 2] and redis.call('ZSCORE', KEYS[2], parent) then
    if number or ARGV[i + 4] ~= '1' then redis.call('HSET', KEYS[1], parent, (number or '0') .. '|' .. (ARGV[i + 4] == '1' and '' or ARGV[i + 3])) end
    if ARGV[i + 4] == '1' then redis.call('ZREM', KEYS[2], parent) end
  end
end
return {'ok', redis.call('ZCARD', KEYS[2]) > 0 and 1 or 0}
