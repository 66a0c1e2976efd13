-- submit: admit one operation, recognise it, or refuse it.
--
-- KEYS[1]   despacho:{m}:jobs:operation       job stream
-- KEYS[2]   despacho:{m}:operation:<id>       its record
-- KEYS[3]   despacho:{m}:operations:<caller>  ids of the caller's operations by time
-- KEYS[4]   despacho:{m}:load                 bytes admitted and not yet retired
-- KEYS[5]   despacho:{m}:totals               outcomes counted for ever
-- KEYS[6]   despacho:{m}:card                 what the model is; exists while it is known
-- ARGV[1]   most operations that wait
-- ARGV[2]   most bytes of them
-- ARGV[3]   most operations that the caller may have, ended ones included
-- ARGV[4]   size of this one, bytes
-- ARGV[5]   how long it may take, milliseconds
-- ARGV[6]   how long it can be fetched after its end, milliseconds
-- ARGV[7]   id
-- ARGV[8]   caller
-- ARGV[9]   fingerprint: equal when the content is
-- ARGV[10]  encoded Job
-- ARGV[11]  image
--
-- Returns   1  admitted, now or by an earlier request with the same content
--          -1  refused: too many wait
--          -2  refused: too many bytes wait
--          -3  refused: the caller has too many; some of them may be gone
--          -4  refused: the id belongs to other content
--          -5  refused: the model was forgotten
-- Fails with OOM when Redis is at its maxmemory: nothing was changed.

local known = redis.call('HGET', KEYS[2], 'fingerprint')
if known then
  if known ~= ARGV[9] then return -4 end
  -- Changes nothing, but is a write: WAITAOF waits for what this connection wrote.
  redis.call('PEXPIREAT', KEYS[2], redis.call('PEXPIRETIME', KEYS[2]))
  return 1
end
if redis.call('EXISTS', KEYS[6]) == 0 then return -5 end

local waiting = redis.call('XLEN', KEYS[1])
if waiting >= tonumber(ARGV[1]) then return -1 end
local bytes = 0
if waiting > 0 then bytes = tonumber(redis.call('HGET', KEYS[4], 'operation_bytes') or 0) end
if waiting > 0 and bytes + tonumber(ARGV[4]) > tonumber(ARGV[2]) then return -2 end
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[3]) then return -3 end

local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local life_ms = tonumber(ARGV[5]) + tonumber(ARGV[6])

-- The first write is one that is refused when memory is full, on purpose.
local deadline_ms = string.format('%.0f', now_ms + tonumber(ARGV[5]))
local entry = redis.call('XADD', KEYS[1], '*',
  'job', ARGV[10], 'deadline', deadline_ms, 'size', ARGV[4], 'image', ARGV[11])
local number = redis.call('HINCRBY', KEYS[4], 'operation_number', 1)
redis.call('HSET', KEYS[4], 'operation_bytes', string.format('%.0f', bytes + tonumber(ARGV[4])))
redis.call('HSET', KEYS[2], 'caller', ARGV[8], 'fingerprint', ARGV[9], 'job', ARGV[10],
  'entry', entry, 'size', ARGV[4], 'number', number,
  'created', string.format('%.0f', now_ms), 'deadline', deadline_ms, 'ttl', ARGV[6])
redis.call('PEXPIREAT', KEYS[2], string.format('%.0f', now_ms + life_ms))
-- Scores are times with a number behind: unique, and a page can end at any.
redis.call('ZADD', KEYS[3], string.format('%.0f', now_ms * 1024 + number % 1024), ARGV[7])
-- One that ends late is kept for longer, and those before may have been given more time.
local listed_ms = life_ms + tonumber(ARGV[6])
if redis.call('PEXPIRE', KEYS[3], listed_ms, 'NX') == 0 then
  redis.call('PEXPIRE', KEYS[3], listed_ms, 'GT')
end
redis.call('HINCRBY', KEYS[5], 'accepted', 1)
return 1
