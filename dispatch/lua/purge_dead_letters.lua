-- purge_dead_letters: delete dead letters by name.
--
-- KEYS[1]   despacho:{m}:dead   dead-letter stream
-- KEYS[2]   despacho:{m}:load   bytes of dead letters
-- ARGV[1]   bytes of letters after which to stop
-- ARGV[2..] entry ids
--
-- Returns {ids, letters}: how many of the ids were looked at, from the first one
-- on, and how many letters were deleted; the others were not there.

local left, looked, deleted, freed = tonumber(ARGV[1]), 0, 0, 0
for i = 2, #ARGV do
  if left <= freed then break end
  local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  looked = looked + 1
  if entry then
    for j = 1, #entry[2], 2 do
      if entry[2][j] == 'size' then freed = freed + (tonumber(entry[2][j + 1]) or 0) end
    end
    -- XDEL is allowed when memory is full, and then so is the rest.
    deleted = deleted + redis.call('XDEL', KEYS[1], ARGV[i])
  end
end
if deleted > 0 then
  redis.call('HINCRBY', KEYS[2], 'dead_bytes', string.format('%.0f', 0 - freed))
end
return {looked, deleted}
