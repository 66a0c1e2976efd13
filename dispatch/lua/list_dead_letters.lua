-- list_dead_letters: read dead letters, oldest first, and leave their images here.
--
-- KEYS[1]  despacho:{m}:dead   dead-letter stream
-- ARGV[1]  entry id after which to begin; 0-0 is before the first
-- ARGV[2]  most letters
-- ARGV[3]  bytes of images after which to stop
--
-- Returns {more, id, letter, size, id, letter, size, …}: more is 1 when there are
-- letters behind the last one.

local found = {0}
local after, room, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
while true do
  -- One at a time: an entry cannot be read without its image, and all images of a
  -- page at once would be held in here.
  local entry = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', 1)[1]
  if not entry then return found end
  if room <= 0 or bytes <= 0 then
    found[1] = 1
    return found
  end
  local fields = {letter = '', size = '0', image = ''}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  found[#found + 1] = entry[1]
  found[#found + 1] = fields.letter
  found[#found + 1] = tonumber(fields.size) and fields.size or '0'
  after, room, bytes = entry[1], room - 1, bytes - #fields.image
end
