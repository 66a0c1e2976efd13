-- quarantine: retire a claimed job on which workers died, and keep it for an operator.
--
-- KEYS[1]  despacho:{m}:jobs:<p>          job stream
-- KEYS[2]  despacho:{m}:load              bytes admitted; bytes of dead letters
-- KEYS[3]  despacho:{m}:totals            outcomes counted for ever
-- KEYS[4]  despacho:{m}:replies:<server>  of a call: reply stream; exists while its owner lives
--          despacho:{m}:operation:<id>    of an operation: its record
-- KEYS[5]  despacho:{m}:done              operations that have just ended
-- KEYS[6]  despacho:{m}:dead              dead-letter stream
-- ARGV[1]  consumer group
-- ARGV[2]  entry id of the job
-- ARGV[3]  its size field, bytes
-- ARGV[4]  encoded Reply: JOB_POISONED
-- ARGV[5]  encoded DeadLetter
-- ARGV[6]  id of the operation; empty: it is a call
-- ARGV[7]  how many ended operations are remembered
-- ARGV[8]  how long they are, milliseconds
-- ARGV[9]  most bytes of dead letters
--
-- Returns  1  set aside and published
--          0  somebody else retired the job first; nothing was changed
--         -1  set aside, but its front-end or its record is gone

if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
-- The image goes from stream to stream in here: this is rare, and a worker on a slow
-- link could never send a large one back in time.
local image = ''
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if entry then
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'image' then image = entry[2][i + 1] end
  end
end
redis.call('XDEL', KEYS[1], ARGV[2])
local is_call = ARGV[6] == ''
redis.call('HINCRBY', KEYS[2], is_call and 'bytes' or 'operation_bytes', -ARGV[3])
redis.call('HINCRBY', KEYS[3], 'poisoned', 1)

local most = tonumber(ARGV[9])
if tonumber(ARGV[3]) <= most then
  -- Without letters there can be no bytes, whatever an operator's DEL has left.
  if redis.call('XLEN', KEYS[6]) == 0 then redis.call('HSET', KEYS[2], 'dead_bytes', 0) end
  redis.call('XADD', KEYS[6], '*', 'letter', ARGV[5], 'size', ARGV[3], 'image', image)
  local dead = redis.call('HINCRBY', KEYS[2], 'dead_bytes', ARGV[3])
  while dead > most do
    local oldest = redis.call('XRANGE', KEYS[6], '-', '+', 'COUNT', 1)[1]
    if not oldest then break end
    local size = 0
    for i = 1, #oldest[2], 2 do
      if oldest[2][i] == 'size' then size = tonumber(oldest[2][i + 1]) or 0 end
    end
    redis.call('XDEL', KEYS[6], oldest[1])
    -- Not a minus in front: Redis 7.0 takes -0 for no number.
    dead = redis.call('HINCRBY', KEYS[2], 'dead_bytes', 0 - size)
  end
end

if is_call then
  return redis.call('XADD', KEYS[4], 'NOMKSTREAM', '*', 'reply', ARGV[4]) and 1 or -1
end
if redis.call('HGET', KEYS[4], 'entry') ~= ARGV[2] then return -1 end
local now = redis.call('TIME')
redis.call('HSET', KEYS[4], 'outcome', 'poisoned', 'reply', ARGV[4],
  'ended', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
redis.call('PEXPIRE', KEYS[4], redis.call('HGET', KEYS[4], 'ttl'))
redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[7], '*', 'operation', ARGV[6])
redis.call('PEXPIRE', KEYS[5], ARGV[8])
return 1
