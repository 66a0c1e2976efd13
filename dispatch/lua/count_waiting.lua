-- count_waiting: how many jobs of each stream nobody has claimed yet.
--
-- KEYS[1..]  despacho:{m}:jobs:<p>   job streams
-- ARGV[1]    consumer group
--
-- Returns one count for each stream, 1 for a key that is none: reading it tells why. Too low
-- after somebody has deleted claimed jobs by hand; who then waits for jobs is given them anyway.
-- NOGROUP where there is no queue.

local counts = {}
for index = 1, #KEYS do
  local all = redis.pcall('XLEN', KEYS[index])
  if type(all) == 'table' then
    counts[index] = 1
  else
    -- A job leaves the stream and the list of what is claimed together.
    local claimed = redis.call('XPENDING', KEYS[index], ARGV[1])[1]
    counts[index] = math.max(0, all - claimed)
  end
end
return counts
