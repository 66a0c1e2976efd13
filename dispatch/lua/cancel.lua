-- cancel: retire a job whose caller no longer waits, wherever it is.
--
-- KEYS[1..3]  despacho:{m}:jobs:<p>   job streams, highest priority first
-- KEYS[4]     despacho:{m}:job:<id>   where the entry is
-- KEYS[5]     despacho:{m}:load       bytes admitted and not yet retired
-- KEYS[6]     despacho:{m}:totals     outcomes counted for ever
-- ARGV[1]     consumer group
-- ARGV[2]     size of the job, bytes
-- ARGV[3]     outcome: cancelled or expired
-- ARGV[4]     how long to refuse a late enqueue of the same job, milliseconds
--
-- Returns  1  retired, and no worker had it
--          2  retired, in the hands of a worker
--          0  it was never admitted, or is retired already
-- Fails only before anything was changed, such as on a replica.

local where = redis.call('GET', KEYS[4])
if not where then
  -- An enqueue whose outcome is unknown may still lie in a socket of a broken
  -- connection. Full memory would refuse the mark, but then that enqueue too.
  local mark = redis.pcall('SET', KEYS[4], 'void', 'PX', ARGV[4])
  if mark.err and string.sub(mark.err, 1, 3) ~= 'OOM' then return mark end
  return 0
end
if where == 'void' then return 0 end

local stream = KEYS[tonumber(string.sub(where, 1, 1))]
local entry = string.sub(where, 3)
-- A claimed entry is won with XACK, one not yet delivered with XDEL.
local claimed = redis.call('XACK', stream, ARGV[1], entry) == 1
local deleted = redis.call('XDEL', stream, entry) == 1
if not claimed and not deleted then return 0 end
redis.call('HINCRBY', KEYS[5], 'bytes', -ARGV[2])
redis.call('HINCRBY', KEYS[6], ARGV[3], 1)
return claimed and 2 or 1
