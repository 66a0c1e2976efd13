-- enqueue: admit jobs of one model, in order, refusing each that a limit has no room for.
--
-- KEYS[1..3]  despacho:{m}:jobs:<p>   job streams, highest priority first
-- KEYS[4]     despacho:{m}:load       bytes admitted and not yet retired
-- KEYS[5]     despacho:{m}:totals     outcomes counted for ever
-- KEYS[6..]   despacho:{m}:job:<id>   of each job: where the entry is; also recognises a resend
-- ARGV[1]     most jobs
-- ARGV[2]     most bytes
-- ARGV[3]     how long after a deadline a cancel must still find the entry, milliseconds
-- ARGV[4..]   of each job, five in a row:
--             index of the job stream, 1 to 3
--             size of the job, bytes
--             time left until the caller's deadline, milliseconds, at least 1
--             encoded Job
--             image
--
-- Returns for each job:
--          1  admitted, now or by an earlier send of the same job
--         -1  refused: too many jobs
--         -2  refused: too many bytes
--      error  refused, and nothing was changed for it: OOM when Redis is at its maxmemory
-- Fails as a whole only before anything was changed, such as on a replica.

-- A key that is not of its type fails here, while nothing is done yet.
local bytes = tonumber(redis.call('HGET', KEYS[4], 'bytes') or 0)
redis.call('HEXISTS', KEYS[5], 'accepted')

local jobs = 0
for i = 1, 3 do jobs = jobs + redis.call('XLEN', KEYS[i]) end
-- With nothing admitted there can be no bytes: what an operator's DEL of a
-- stream may have left in the count ends here.
if jobs == 0 then bytes = 0 end

local most_jobs, most_bytes, grace_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)

local answers, admitted = {}, 0
for i = 1, #KEYS - 5 do
  local key, first = KEYS[5 + i], 5 * i - 1
  local index, size, left_ms = ARGV[first], tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
  if redis.call('EXISTS', key) == 1 then
    answers[i] = 1
  elseif jobs >= most_jobs then
    answers[i] = -1
  elseif jobs > 0 and bytes + size > most_bytes then
    answers[i] = -2
  else
    -- Redis looks at its memory when a script starts, and refuses only the first
    -- write: this one, on purpose. So either all of these fail or none does.
    local entry = redis.pcall('XADD', KEYS[tonumber(index)], '*',
      'job', ARGV[first + 3], 'deadline', string.format('%.0f', now_ms + left_ms),
      'size', ARGV[first + 1], 'image', ARGV[first + 4])
    if type(entry) == 'table' then
      -- Not about this job: no replica admits any. Whoever asks looks for the primary.
      if string.sub(entry.err, 1, 8) == 'READONLY' then return entry end
      answers[i] = entry
    else
      redis.call('SET', key, index .. ' ' .. entry, 'PX', string.format('%.0f', left_ms + grace_ms))
      answers[i] = 1
      jobs, bytes, admitted = jobs + 1, bytes + size, admitted + 1
    end
  end
end

if admitted > 0 then
  redis.call('HSET', KEYS[4], 'bytes', string.format('%.0f', bytes))
  redis.call('HINCRBY', KEYS[5], 'accepted', admitted)
end
return answers
