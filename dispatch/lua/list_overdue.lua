-- list_overdue: find the jobs at the head of a stream that are overdue.
--
-- KEYS[1]  despacho:{m}:jobs:<p>   job stream
-- ARGV[1]  how long after its deadline one is overdue, milliseconds
-- ARGV[2]  most to find
-- ARGV[3]  bytes of images after which to stop
--
-- Returns {entry id, size, job, entry id, size, job, …}, oldest first and without
-- images; size and job are empty where an entry is none of ours.

-- Fifteen digits are exact, and so good to count with.
local function is_number(text)
  return text and #text <= 15 and string.find(text, '^%d+$')
end

local now = redis.call('TIME')
local overdue_ms = now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(ARGV[1])
local found, after, room, bytes = {}, '-', tonumber(ARGV[2]), tonumber(ARGV[3])
while room > 0 and bytes > 0 do
  -- One at a time: an entry cannot be read without its image.
  local entry = redis.call('XRANGE', KEYS[1], after, '+', 'COUNT', 1)[1]
  if not entry then break end
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local is_ours = is_number(fields['deadline']) and is_number(fields['size']) and fields['job']
  -- The first is the oldest, and so, the settings being what they were, the first operation that
  -- is due. A call that may take longer keeps those behind it from being found until it ends.
  if is_ours and tonumber(fields['deadline']) > overdue_ms then break end
  found[#found + 1] = entry[1]
  found[#found + 1] = is_ours and fields['size'] or ''
  found[#found + 1] = is_ours and fields['job'] or ''
  after, room, bytes = '(' .. entry[1], room - 1, bytes - #(fields['image'] or '')
end
return found
