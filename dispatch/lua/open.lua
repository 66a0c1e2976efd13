-- open: create the job streams and their group where they are missing.
--
-- KEYS[1..]  despacho:{m}:jobs:<p>   job streams, highest priority first
-- ARGV[1]    consumer group
--
-- Returns how many groups were created.

local count = 0
for i = 1, #KEYS do
  -- XACK comes first because it is allowed when memory is full, and then so is the
  -- rest: a worker must be able to start and to drain a full Redis.
  redis.pcall('XACK', KEYS[i], ARGV[1], '0-0')
  local created = redis.pcall('XGROUP', 'CREATE', KEYS[i], ARGV[1], '0', 'MKSTREAM')
  if not created.err then
    count = count + 1
  elseif not string.find(created.err, 'BUSYGROUP', 1, true) then
    return created
  end
end
return count
