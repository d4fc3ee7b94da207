-- declare: what is kept of the finished jobs of kinds. Moves no job. Sent twice it writes the same.
-- KEYS  1 kinds
-- ARGV  1 'anew', or 'missing' to leave alone what this version or a newer one wrote, then for each kind: name, record
-- Reply {'ok', number of kinds written}
local names, fields = {}, {}
for i = 2, #ARGV, 2 do names[#names + 1] = ARGV[i] end
local had = redis.call('HMGET', KEYS[1], unpack(names))
for j, name in ipairs(names) do
  if ARGV[1] == 'anew' or not had[j] or not had[j]:find('^%d+|') then
    fields[#fields + 1] = name
    fields[#fields + 1] = ARGV[j * 2 + 1]
  end
end
if #fields > 0 then redis.call('HSET', KEYS[1], unpack(fields)) end
return {'ok', #fields / 2}
