-- give_back: let any worker take claimed jobs at once, without counting an attempt.
--
-- KEYS[1..]   despacho:{m}:jobs:<p>   job streams, highest priority first
-- ARGV[1]     consumer group
-- ARGV[2]     this worker
-- ARGV[3]     consumer that holds jobs given back
-- ARGV[4..]   pairs: index of the job stream, entry id
--
-- Returns how many were given back; the others were no longer ours.

local count = 0
for i = 4, #ARGV, 2 do
  local stream, entry = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
  local mine = redis.call('XPENDING', stream, ARGV[1], entry, entry, 1, ARGV[2])[1]
  if mine then
    redis.call('XCLAIM', stream, ARGV[1], ARGV[3], 0, entry, 'RETRYCOUNT', mine[4] - 1, 'JUSTID')
    count = count + 1
  end
end
return count
