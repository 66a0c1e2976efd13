-- complete: publish the one reply of a claimed job and retire it.
--
-- KEYS[1]  despacho:{m}:jobs:<p>          job stream
-- KEYS[2]  despacho:{m}:replies:<server>  reply stream; exists while its owner lives
-- KEYS[3]  despacho:{m}:load              bytes admitted and not yet retired
-- KEYS[4]  despacho:{m}:totals            outcomes counted for ever
-- ARGV[1]  consumer group
-- ARGV[2]  entry id of the job
-- ARGV[3]  its size field, bytes
-- ARGV[4]  encoded Reply
-- ARGV[5]  outcome: completed, failed or expired
--
-- Returns  1  published
--          0  somebody else retired the job first; nothing was changed
--         -1  retired, but its front-end is gone

-- XACK succeeds once per entry, whoever owns it, so it decides who answers. It
-- comes first because it is allowed when memory is full, and then so is the rest.
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('HINCRBY', KEYS[3], 'bytes', -ARGV[3])
local published = redis.call('XADD', KEYS[2], 'NOMKSTREAM', '*', 'reply', ARGV[4])
local outcome = ARGV[5]
-- Expired jobs cost no inference, so they are not counted as work for nobody.
if not published and outcome ~= 'expired' then outcome = 'orphaned' end
redis.call('HINCRBY', KEYS[4], outcome, 1)
return published and 1 or -1
