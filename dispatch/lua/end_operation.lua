-- end_operation: retire the job of an operation without an answer from a worker.
--
-- KEYS[1]  despacho:{m}:jobs:operation   job stream
-- KEYS[2]  despacho:{m}:operation:<id>   its record
-- KEYS[3]  despacho:{m}:load             bytes admitted and not yet retired
-- KEYS[4]  despacho:{m}:totals           outcomes counted for ever
-- KEYS[5]  despacho:{m}:done             operations that have just ended
-- ARGV[1]  consumer group
-- ARGV[2]  caller
-- ARGV[3]  outcome: cancelled, or expired if its deadline has passed
-- ARGV[4]  encoded Reply
-- ARGV[5]  id of the operation
-- ARGV[6]  how many ended operations are remembered
-- ARGV[7]  how long they are, milliseconds
-- ARGV[8]  entry id of the job, whose record may be gone; empty: the record says it
-- ARGV[9]  size of that entry, bytes
--
-- Returns  1  ended now, and no worker had it
--          2  ended now; it was claimed, or given back
--          0  it had ended already, or its deadline has not passed
--         -1  the caller has no such operation

if ARGV[8] ~= '' and redis.call('HGET', KEYS[2], 'entry') ~= ARGV[8] then
  -- Nobody can fetch it any more, and without workers nobody else retires it.
  local acked = redis.call('XACK', KEYS[1], ARGV[1], ARGV[8])
  if redis.call('XDEL', KEYS[1], ARGV[8]) + acked == 0 then return 0 end
  -- Not a minus in front: Redis 7.0 takes -0 for no number.
  redis.call('HINCRBY', KEYS[3], 'operation_bytes', 0 - ARGV[9])
  redis.call('HINCRBY', KEYS[4], ARGV[3], 1)
  return 1 + acked
end
if redis.call('HGET', KEYS[2], 'caller') ~= ARGV[2] then return -1 end
if redis.call('HEXISTS', KEYS[2], 'ended') == 1 then return 0 end
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
if ARGV[3] == 'expired' and now_ms < tonumber(redis.call('HGET', KEYS[2], 'deadline')) then
  return 0
end

local entry = redis.call('HGET', KEYS[2], 'entry')
-- A claimed entry is won with XACK, one not yet delivered with XDEL. One that is
-- lost ends here as well: there is nobody else to end it.
local is_claimed = redis.call('XACK', KEYS[1], ARGV[1], entry) == 1
redis.call('XDEL', KEYS[1], entry)
redis.call('HINCRBY', KEYS[3], 'operation_bytes', -redis.call('HGET', KEYS[2], 'size'))
redis.call('HINCRBY', KEYS[4], ARGV[3], 1)
redis.call('HSET', KEYS[2], 'outcome', ARGV[3], 'reply', ARGV[4],
  'ended', string.format('%.0f', now_ms))
redis.call('PEXPIRE', KEYS[2], redis.call('HGET', KEYS[2], 'ttl'))
redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[6], '*', 'operation', ARGV[5])
redis.call('PEXPIRE', KEYS[5], ARGV[7])
return is_claimed and 2 or 1
