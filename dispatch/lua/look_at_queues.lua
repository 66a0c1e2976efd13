-- look_at_queues: tell how much waits for a model, and for how long.
--
-- KEYS[1..]  despacho:{m}:jobs:<p>  job streams
-- ARGV[1]    consumer group
--
-- Returns for each stream: entries; those claimed; age of the oldest, milliseconds.

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
for i = 1, #KEYS do
  local entries, claimed, age_ms = redis.call('XLEN', KEYS[i]), 0, 0
  local oldest
  if entries > 0 then
    local pending = redis.pcall('XPENDING', KEYS[i], ARGV[1])
    -- What is claimed came before what waits.
    if not pending.err then claimed, oldest = pending[1], pending[2] end
    -- The image comes along as far as here, and no further: once a second, while nobody claims.
    oldest = oldest or redis.call('XRANGE', KEYS[i], '-', '+', 'COUNT', 1)[1][1]
    age_ms = math.max(0, now_ms - tonumber(string.match(oldest, '^%d+')))
  end
  found[#found + 1] = entries
  found[#found + 1] = claimed
  found[#found + 1] = age_ms
end
return found
