-- trim: lets go of jobs that ended long ago, or of which there are too many. Moves no job.
-- KEYS  1 call, 2 info, 3 counts, 4 spec, 5 meta, 6 result, 7 errors, 8 unique, then the sets of ended jobs, then kids, outbox
-- ARGV  1 call number, 2 term, 3 jobs at most, then for each set: state, how long they are kept (ms, -1 no limit),
--       how many (-1 no limit)
-- Reply {'ok', number of jobs, 1 if there may be more, {jobs that stay only for their children, ...}}, {'deposed'}, {'superseded'}
if deposed(KEYS[2], ARGV[2]) then return {'deposed'} end
local answer, superseded = recall(KEYS[1], ARGV[1])
if superseded then return {'superseded'} end
if answer then
  local jobs, more = answer:match('^(%d+) (%d)$')
  return {'ok', tonumber(jobs), tonumber(more), {}}
end

local found, n, more = {}, 0, 0
for set = 9, #KEYS - 2 do
  local a, left = 4 + (set - 9) * 3, ARGV[3] - n
  if left < 1 then
    more = 1
    break
  end
  local gone, rest = outlived(KEYS[set], KEYS[5], ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), 0, left)
  if gone then
    found[set] = gone
    n = n + #gone.ids
  end
  if rest then more = 1 end
end
typed({KEYS[3], KEYS[4], KEYS[6], KEYS[7], KEYS[8]}, {})
for set, gone in pairs(found) do
  forget(KEYS[set], ARGV[4 + (set - 9) * 3], gone, KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8])
end
tally(KEYS[3])
-- Where nothing was to be done there is nothing to remember.
if n > 0 then keep(KEYS[1], ARGV[1], n .. ' ' .. more) end
return {'ok', n, more, {unpack(held, 1, math.min(#held, 500))}}
