-- enqueue: admit one job, or refuse it because a limit is reached.
--
-- KEYS[1..3]  despacho:{m}:jobs:<p>   job streams, highest priority first
-- KEYS[4]     despacho:{m}:job:<id>   where the entry is; also recognises a resend
-- KEYS[5]     despacho:{m}:load       bytes admitted and not yet retired
-- KEYS[6]     despacho:{m}:totals     outcomes counted for ever
-- ARGV[1]     index of the job stream, 1 to 3
-- ARGV[2]     most jobs
-- ARGV[3]     most bytes
-- ARGV[4]     size of this job, bytes
-- ARGV[5]     time left until the caller's deadline, milliseconds, at least 1
-- ARGV[6]     how long after the deadline a cancel must still find the entry, milliseconds
-- ARGV[7]     encoded Job
-- ARGV[8]     image
--
-- Returns   1  admitted, now or by an earlier send of the same job
--          -1  refused: too many jobs
--          -2  refused: too many bytes
-- Fails with OOM when Redis is at its maxmemory: nothing was changed.

if redis.call('EXISTS', KEYS[4]) == 1 then return 1 end

local jobs = 0
for i = 1, 3 do jobs = jobs + redis.call('XLEN', KEYS[i]) end
if jobs >= tonumber(ARGV[2]) then return -1 end

-- With nothing admitted there can be no bytes: what an operator's DEL of a
-- stream may have left in the count ends here.
local bytes = 0
if jobs > 0 then bytes = tonumber(redis.call('HGET', KEYS[5], 'bytes') or 0) end
if jobs > 0 and bytes + tonumber(ARGV[4]) > tonumber(ARGV[3]) then return -2 end

local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local deadline_ms = string.format('%.0f', now_ms + tonumber(ARGV[5]))

-- The first write is one that is refused when memory is full, on purpose.
local entry = redis.call('XADD', KEYS[tonumber(ARGV[1])], '*',
  'job', ARGV[7], 'deadline', deadline_ms, 'size', ARGV[4], 'image', ARGV[8])
redis.call('SET', KEYS[4], ARGV[1] .. ' ' .. entry, 'PX', ARGV[5] + ARGV[6])
redis.call('HSET', KEYS[5], 'bytes', string.format('%.0f', bytes + tonumber(ARGV[4])))
redis.call('HINCRBY', KEYS[6], 'accepted', 1)
return 1
