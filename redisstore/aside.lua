-- aside: moves a key that has another type than it should out of the way, for a week. Moves no job. Sent again, it finds
-- what it moved.
-- KEYS  1 the key, 2 its name aside
-- ARGV  1 type that it should have, 2 how long it is kept (ms)
-- Reply {'ok', type that it had, '' if all is well}
local function kind(key)
  local answer = redis.call('TYPE', key)
  return type(answer) == 'table' and answer.ok or answer
end
local found = kind(KEYS[1])
if found == 'none' or found == ARGV[1] then
  local moved = kind(KEYS[2])
  return {'ok', moved == 'none' and '' or moved}
end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return {'ok', found}
