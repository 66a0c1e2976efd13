-- complete: give the one answer of a claimed job, and retire it.
--
-- KEYS[1]  despacho:{m}:jobs:<p>          job stream
-- KEYS[2]  despacho:{m}:load              bytes admitted and not yet retired
-- KEYS[3]  despacho:{m}:totals            outcomes counted for ever
-- KEYS[4]  despacho:{m}:replies:<server>  of a call: reply stream; exists while its owner lives
--          despacho:{m}:operation:<id>    of an operation: its record
-- KEYS[5]  despacho:{m}:done              operations that have just ended
-- ARGV[1]  consumer group
-- ARGV[2]  entry id of the job
-- ARGV[3]  its size field, bytes
-- ARGV[4]  encoded Reply
-- ARGV[5]  outcome: completed, failed or expired
-- ARGV[6]  id of the operation; empty: it is a call
-- ARGV[7]  how many ended operations are remembered
-- ARGV[8]  how long they are, milliseconds
--
-- Returns  1  published
--          0  somebody else retired the job first; nothing was changed
--         -1  retired, but its front-end or its record is gone

-- XACK succeeds once per entry, whoever owns it, so it decides who answers. It
-- comes first because it is allowed when memory is full, and then so is the rest.
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[2])
local is_call = ARGV[6] == ''
redis.call('HINCRBY', KEYS[2], is_call and 'bytes' or 'operation_bytes', -ARGV[3])

local published
if is_call then
  published = redis.call('XADD', KEYS[4], 'NOMKSTREAM', '*', 'reply', ARGV[4])
elseif redis.call('HGET', KEYS[4], 'entry') == ARGV[2] then
  local now = redis.call('TIME')
  redis.call('HSET', KEYS[4], 'outcome', ARGV[5], 'reply', ARGV[4],
    'ended', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
  redis.call('PEXPIRE', KEYS[4], redis.call('HGET', KEYS[4], 'ttl'))
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[7], '*', 'operation', ARGV[6])
  redis.call('PEXPIRE', KEYS[5], ARGV[8])
  published = true
end

local outcome = ARGV[5]
-- Expired jobs cost no inference, so they are not counted as work for nobody.
if not published and outcome ~= 'expired' then outcome = 'orphaned' end
redis.call('HINCRBY', KEYS[3], outcome, 1)
return published and 1 or -1
