-- end_call: retire a call that is long overdue, and that nobody has retired.
--
-- KEYS[1]  despacho:{m}:jobs:<p>  job stream
-- KEYS[2]  despacho:{m}:load      bytes admitted and not yet retired
-- KEYS[3]  despacho:{m}:totals    outcomes counted for ever
-- ARGV[1]  consumer group
-- ARGV[2]  entry id of the job
-- ARGV[3]  its size field, bytes
--
-- Returns  1  retired, and no worker had it
--          2  retired; it was claimed, or given back
--          0  it is retired already

-- A claimed entry is won with XACK, one not yet delivered with XDEL. A worker that still has it
-- works for nobody, and comes too late.
local acked = redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
if redis.call('XDEL', KEYS[1], ARGV[2]) + acked == 0 then return 0 end
-- Not a minus in front: Redis 7.0 takes -0 for no number.
redis.call('HINCRBY', KEYS[2], 'bytes', 0 - ARGV[3])
redis.call('HINCRBY', KEYS[3], 'expired', 1)
return 1 + acked
