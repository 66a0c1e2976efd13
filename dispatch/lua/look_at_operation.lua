-- look_at_operation: tell how far an operation has come.
--
-- KEYS[1]  despacho:{m}:operation:<id>   its record
-- KEYS[2]  despacho:{m}:jobs:operation   job stream
-- KEYS[3]  despacho:{m}:load             number of the operation admitted last
-- ARGV[1]  caller
-- ARGV[2]  consumer group
-- ARGV[3]  consumer that holds jobs given back
--
-- Returns  {record, end of its life, now, attempt, is running, position}: the record
--          as HGETALL does; times in milliseconds; deliveries so far; 1 while a worker
--          holds it; how many are taken before it plus one, an estimate, or 0
--          false when the caller has no such operation

local caller = redis.call('HGET', KEYS[1], 'caller')
if caller ~= ARGV[1] then return false end
local record = redis.call('HGETALL', KEYS[1])
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local answer = {record, redis.call('PEXPIRETIME', KEYS[1]), now_ms, 0, 0, 0}

local fields = {}
for i = 1, #record, 2 do fields[record[i]] = record[i + 1] end
if fields['ended'] then return answer end

-- Without workers there may be no group yet.
local held = redis.pcall('XPENDING', KEYS[2], ARGV[2], fields['entry'], fields['entry'], 1)
if not held.err and held[1] then
  local is_given_back = held[1][2] == ARGV[3]
  answer[4], answer[5] = held[1][4], is_given_back and 0 or 1
  answer[6] = is_given_back and 1 or 0
  return answer
end
-- Of those that nobody holds, the ones admitted after this one wait behind it.
local group = redis.pcall('XPENDING', KEYS[2], ARGV[2])
local all_held = group.err and 0 or group[1]
local last = redis.call('HGET', KEYS[3], 'operation_number') or fields['number']
local nobodys = redis.call('XLEN', KEYS[2]) - all_held
answer[6] = math.max(1, math.min(nobodys, nobodys - (last - fields['number'])))
return answer
