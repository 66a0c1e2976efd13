-- complete: give the answers of claimed jobs of one model, and retire them.
--
-- KEYS[1]  despacho:{m}:load              bytes admitted and not yet retired
-- KEYS[2]  despacho:{m}:totals            outcomes counted for ever
-- KEYS[3]  despacho:{m}:done              operations that have just ended
-- KEYS[4..] of each job, two in a row:
--          despacho:{m}:jobs:<p>          job stream
--          despacho:{m}:replies:<server>  of a call: reply stream; exists while its owner lives
--          despacho:{m}:operation:<id>    of an operation: its record
-- ARGV[1]  consumer group
-- ARGV[2]  how many ended operations are remembered
-- ARGV[3]  how long they are, milliseconds
-- ARGV[4..] of each job, five in a row:
--          entry id
--          its size field, bytes
--          encoded Reply
--          outcome: completed, failed or expired
--          id of the operation; empty: it is a call
--
-- Returns for each job:
--          1  published
--          0  somebody else retired it first; nothing was changed
--         -1  retired, but its front-end or its record is gone, or is none
--      error  nothing was changed for it: its job stream is none
-- Fails as a whole only before anything was changed, such as on a replica.

-- Keys that are not of their type fail here, while nothing is done yet.
redis.call('HGET', KEYS[1], 'bytes')
redis.call('HGET', KEYS[2], 'completed')
local now_ms
for i = 8, #ARGV, 5 do
  if ARGV[i] ~= '' then
    redis.call('XLEN', KEYS[3])
    local now = redis.call('TIME')
    now_ms = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
    break
  end
end

-- Gives the answer of an operation; returns whether there was somebody to give it to.
local function record(key, entry, outcome, reply, id)
  if redis.call('HGET', key, 'entry') ~= entry then return false end
  redis.call('HSET', key, 'outcome', outcome, 'reply', reply, 'ended', now_ms)
  redis.call('PEXPIRE', key, redis.call('HGET', key, 'ttl'))
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[2], '*', 'operation', id)
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
  return true
end

local answers, freed, ended = {}, {}, {}
for i = 1, (#KEYS - 3) / 2 do
  local jobs, target, first = KEYS[2 * i + 2], KEYS[2 * i + 3], 5 * i - 1
  local entry, size, reply = ARGV[first], tonumber(ARGV[first + 1]), ARGV[first + 2]
  local outcome, operation = ARGV[first + 3], ARGV[first + 4]
  -- XACK succeeds once per entry, whoever owns it, so it decides who answers. It comes first
  -- because it is allowed when memory is full, and then so is all that follows.
  local acknowledged = redis.pcall('XACK', jobs, ARGV[1], entry)
  if type(acknowledged) == 'table' or acknowledged == 0 then
    -- What is not the fault of the key is that of the server, and the same for all of them.
    if type(acknowledged) == 'table' and not acknowledged.err:find('WRONGTYPE', 1, true) then
      return acknowledged
    end
    answers[i] = acknowledged
  else
    redis.call('XDEL', jobs, entry)
    local published
    if operation == '' then
      freed.bytes = (freed.bytes or 0) + size
      local added = redis.pcall('XADD', target, 'NOMKSTREAM', '*', 'reply', reply)
      published = type(added) == 'string'
    else
      freed.operation_bytes = (freed.operation_bytes or 0) + size
      local is_record, given = pcall(record, target, entry, outcome, reply, operation)
      published = is_record and given
    end
    -- Expired jobs cost no inference, so they are not counted as work for nobody.
    if not published and outcome ~= 'expired' then outcome = 'orphaned' end
    ended[outcome] = (ended[outcome] or 0) + 1
    answers[i] = published and 1 or -1
  end
end

-- A count that somebody has made no number of is no reason to answer nobody.
for field, size in pairs(freed) do
  -- Not a minus in front: Redis 7.0 takes -0 for no number.
  redis.pcall('HINCRBY', KEYS[1], field, string.format('%.0f', 0 - size))
end
for outcome, count in pairs(ended) do redis.pcall('HINCRBY', KEYS[2], outcome, count) end
return answers
