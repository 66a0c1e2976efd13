-- renew: keep the leases of claimed jobs, and say which are no longer ours.
--
-- KEYS[1..]   despacho:{m}:jobs:<p>   job streams, highest priority first
-- ARGV[1]     consumer group
-- ARGV[2]     this worker
-- ARGV[3]     a lease younger than this stays as it is, milliseconds
-- ARGV[4..]   pairs: index of the job stream, entry id
--
-- Returns the positions, from 1, of the pairs whose job was retired (cancelled, expired) or
-- taken over. Not their ids: the jobs of other streams have the same.

local fresh_ms = tonumber(ARGV[3])

local lost = {}
for i = 4, #ARGV, 2 do
  local stream, entry = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
  local mine = redis.pcall('XPENDING', stream, ARGV[1], entry, entry, 1, ARGV[2])
  if mine.err or #mine == 0 then
    lost[#lost + 1] = i / 2 - 1
  elseif mine[1][3] >= fresh_ms then
    redis.call('XCLAIM', stream, ARGV[1], ARGV[2], 0, entry, 'JUSTID')
  end
end
return lost
