-- count_waiting: how many jobs of each stream nobody has claimed yet.
--
-- KEYS[1..]  despacho:{m}:jobs:<p>   job streams
-- ARGV[1]    consumer group
--
-- Returns one count for each stream, 1 for a key that is none: reading it tells why. Too low
-- after somebody has deleted claimed jobs by hand; who then waits for jobs is given them anyway.
-- NOGROUP where there are jobs and nobody may claim them. A stream that is missing has none.

-- Returns how many jobs of a stream workers have; nil where there is no group.
-- Not from XPENDING, which also counts the jobs of each worker there is.
local function claimed(key)
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local fields = {}
    for i = 1, #group, 2 do fields[group[i]] = group[i + 1] end
    if fields.name == ARGV[1] then return fields.pending end
  end
end

local counts = {}
for index, key in ipairs(KEYS) do
  local all = redis.pcall('XLEN', key)
  if type(all) == 'table' then
    counts[index] = 1
  elseif all == 0 then
    counts[index] = 0
  else
    local taken = claimed(key)
    if not taken then
      return redis.error_reply('NOGROUP ' .. key .. ' has no group ' .. ARGV[1])
    end
    -- A job leaves the stream and the list of what is claimed together.
    counts[index] = math.max(0, all - taken)
  end
end
return counts
