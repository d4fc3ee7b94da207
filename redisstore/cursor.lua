-- A schedule's mutable fields, one string: the version of this form, the version of its definition, its state (on, paused,
-- broken), the last instant that was decided, until when it was seen to wait for its last occurrence, that one's id, how
-- many missed occurrences of the last downtime have no record, the first and the last of these, and why it is broken. Instants are in ms.

-- cursor_of returns them, or nil and 'newer' or 'corrupt'. parseCursor in schedule.go reads the same.
local function cursor_of(s)
  local c = {}
  c.version, c.state, c.at, c.seen, c.last, c.missed, c.from, c.to, c.reason =
    s:match('^1|(%d+)|(%a+)|(%d+)|(%d*)|([^|]*)|(%d+)|(%d*)|(%d*)|(.*)$')
  if c.version and #c.version <= 15 and #c.at <= 15 and #c.seen <= 15 and #c.missed <= 15 and #c.from <= 15 and #c.to <= 15
    and (c.state == 'on' or c.state == 'paused' or c.state == 'broken') then
    return c
  end
  local form = s:match('^(%d+)|')
  if form and #form <= 18 and tonumber(form) > 1 then return nil, 'newer' end
  return nil, 'corrupt'
end

local function cursor_text(c)
  return table.concat({'1', c.version, c.state, c.at, c.seen, c.last, c.missed, c.from, c.to, c.reason}, '|')
end
