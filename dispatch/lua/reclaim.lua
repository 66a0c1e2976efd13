-- reclaim: take over jobs that were given back, and jobs whose worker is lost.
--
-- KEYS[1..]   despacho:{m}:jobs:<p>   job streams, highest priority first
-- ARGV[1]     consumer group
-- ARGV[2]     this worker
-- ARGV[3]     consumer that holds jobs given back
-- ARGV[4]     most jobs to take that are no suspects
-- ARGV[5]     idle time after which a worker counts as lost, milliseconds
-- ARGV[6]     most suspects to take; the worker's hands must be empty
--
-- A suspect is a job of a lost worker, also when it was given back meanwhile. What
-- this worker claimed and never heard of is idle as well; it cannot have harmed
-- anybody, so it counts no attempt.
--
-- Returns {suspects, index, entry id, attempt, index, entry id, attempt, …}:
-- suspects is how many were seen and not taken (a small number, not a count of all).

local group, me, released = ARGV[1], ARGV[2], ARGV[3]
local give, take = tonumber(ARGV[4]), tonumber(ARGV[6])
local taken = {0}

-- The attempt is counted here, not on delivery, so that a job given back keeps its own.
local function take_over(index, pending)
  local attempt = pending[4] + (pending[2] == me and 0 or 1)
  local room = attempt > 1 and take or give
  if room <= 0 then
    if attempt > 1 then taken[1] = taken[1] + 1 end
    return
  end
  local claimed = redis.call('XCLAIM', KEYS[index], group, me, 0, pending[1],
    'RETRYCOUNT', attempt, 'JUSTID')
  if #claimed == 0 then return end
  if attempt > 1 then take = take - 1 else give = give - 1 end
  taken[#taken + 1] = index
  taken[#taken + 1] = pending[1]
  taken[#taken + 1] = attempt
end

for index = 1, #KEYS do
  for _, pending in ipairs(redis.call('XPENDING', KEYS[index], group, '-', '+', 64, released)) do
    take_over(index, pending)
  end
  local idle = redis.call('XPENDING', KEYS[index], group, 'IDLE', ARGV[5], '-', '+', 64)
  for _, pending in ipairs(idle) do
    if pending[2] ~= released then take_over(index, pending) end
  end
end
return taken
