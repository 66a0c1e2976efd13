-- reclaim: take over jobs that were given back, and jobs whose worker is lost.
--
-- KEYS[1..3]  despacho:{m}:jobs:<p>   job streams, highest priority first
-- ARGV[1]     consumer group
-- ARGV[2]     this worker
-- ARGV[3]     consumer that holds jobs given back
-- ARGV[4]     most jobs to take of those given back
-- ARGV[5]     idle time after which a worker counts as lost, milliseconds
-- ARGV[6]     most suspects to take; the worker's hands must be empty
--
-- A suspect is a job of a lost worker: also one that a worker gave back while it
-- ran alone, and one of this worker itself that it never heard it had claimed.
--
-- Returns {suspects, index, entry id, attempt, index, entry id, attempt, …}:
-- suspects is how many were seen and not taken (a small number, not a count of all).

local group, me, released = ARGV[1], ARGV[2], ARGV[3]
local give, take = tonumber(ARGV[4]), tonumber(ARGV[6])
local taken = {0}

-- The attempt is counted here, not on delivery, so that a job given back keeps its own.
local function claim(index, pending)
  local attempt = pending[4] + 1
  local claimed = redis.call('XCLAIM', KEYS[index], group, me, 0, pending[1],
    'RETRYCOUNT', attempt, 'JUSTID')
  if #claimed == 0 then return false end
  taken[#taken + 1] = index
  taken[#taken + 1] = pending[1]
  taken[#taken + 1] = attempt
  return true
end

local function claim_suspect(index, pending)
  if take > 0 and claim(index, pending) then
    take = take - 1
  else
    taken[1] = taken[1] + 1
  end
end

for index = 1, 3 do
  for _, pending in ipairs(redis.call('XPENDING', KEYS[index], group, '-', '+', 64, released)) do
    if pending[4] > 0 then
      claim_suspect(index, pending)
    elseif give > 0 and claim(index, pending) then
      give = give - 1
    end
  end
  local idle = redis.call('XPENDING', KEYS[index], group, 'IDLE', ARGV[5], '-', '+', 64)
  for _, pending in ipairs(idle) do
    if pending[2] ~= released then claim_suspect(index, pending) end
  end
end
return taken
