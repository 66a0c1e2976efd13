-- leave: forget a worker that stops, and consumers that are long gone.
--
-- KEYS[1]   despacho:{m}:worker:<name>  this worker
-- KEYS[2]   despacho:{m}:workers        names of all workers
-- KEYS[3..] despacho:{m}:jobs:<p>       job streams
-- ARGV[1]   consumer group
-- ARGV[2]   name of the worker
-- ARGV[3]   consumer that holds jobs given back
-- ARGV[4]   idle time after which a consumer without jobs is gone, milliseconds
--
-- Returns how many consumers were deleted. One with pending entries never is:
-- deleting it would strand them.

redis.call('DEL', KEYS[1])
redis.call('SREM', KEYS[2], ARGV[2])
local count = 0
for i = 3, #KEYS do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[i], ARGV[1])
  if not consumers.err then
    for _, fields in ipairs(consumers) do
      local consumer = {}
      for j = 1, #fields, 2 do consumer[fields[j]] = fields[j + 1] end
      local is_gone = consumer['name'] == ARGV[2]
        or (consumer['name'] ~= ARGV[3] and consumer['idle'] > tonumber(ARGV[4]))
      if is_gone and consumer['pending'] == 0 then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[i], ARGV[1], consumer['name'])
        count = count + 1
      end
    end
  end
end
return count
