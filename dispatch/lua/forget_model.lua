-- forget_model: delete what is left of a model that nobody serves and nothing waits for.
--
-- KEYS[1]    despacho:{m}:workers        names of workers
-- KEYS[2]    despacho:{m}:dead           dead-letter stream
-- KEYS[3]    despacho:{m}:card           what the model is
-- KEYS[4]    despacho:{m}:load           bytes admitted and not yet retired
-- KEYS[5]    despacho:{m}:totals         outcomes counted for ever
-- KEYS[6]    despacho:{m}:done           operations that have just ended
-- KEYS[7..]  despacho:{m}:jobs:<p>       job streams
-- then       despacho:{m}:worker:<name>  workers that were in KEYS[1], in the order of ARGV
-- ARGV       their names
--
-- Returns {workers, jobs, letters, keys}: how many workers live, jobs wait or are in
-- work, and letters were set aside; if these are 0, how many keys were deleted, else 0.
--
-- Operations that have ended are kept for their callers until their time is over.

local streams = #KEYS - #ARGV
for i = 1, #ARGV do
  -- In here, since a worker that was silent may have spoken again just now.
  if redis.call('EXISTS', KEYS[streams + i]) == 0 then redis.call('SREM', KEYS[1], ARGV[i]) end
end
local workers, letters, jobs = redis.call('SCARD', KEYS[1]), redis.call('XLEN', KEYS[2]), 0
for i = 7, streams do jobs = jobs + redis.call('XLEN', KEYS[i]) end
local deleted = 0
if workers + jobs + letters == 0 then deleted = redis.call('DEL', unpack(KEYS, 1, streams)) end
return {workers, jobs, letters, deleted}
