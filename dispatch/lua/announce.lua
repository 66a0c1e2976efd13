-- announce: say that a worker lives, and learn what time it is.
--
-- KEYS[1]  despacho:{m}:worker:<name>  this worker
-- KEYS[2]  despacho:{m}:workers        names of all workers
-- KEYS[3]  despacho:{m}:card           what the model is
-- KEYS[4]  despacho:{m}:card-of        whose card that is
-- ARGV[1]  name of the worker
-- ARGV[2]  how long it lives without another word, milliseconds
-- ARGV[3]  encoded WorkerCard
-- ARGV[4]  encoded ModelCard
-- ARGV[5]  both: the cards have changed; worker: only that one has; none: neither has
-- ARGV[6]  ready: it takes jobs; loading: it may never do so
--
-- Returns the Redis time, microseconds, as a string.

-- PEXPIRE comes first: it is allowed when memory is full, and then so is the rest.
local is_new = redis.call('PEXPIRE', KEYS[1], ARGV[2]) == 0
if is_new or ARGV[5] ~= 'none' then redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2]) end
if ARGV[6] == 'ready' then
  -- Of several versions the one that became ready last is shown, as long as it lives:
  -- with the names of its classes a card is large, and each write goes to disk.
  local whose = redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[2], 'NX', 'GET')
  local is_next = not whose or ARGV[5] == 'both'
  if is_next then redis.call('SET', KEYS[3], ARGV[4]) end
  if is_next or whose == ARGV[1] then redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[2]) end
end
-- Else only where there is none: the labels may be those of no answer.
if is_new or ARGV[5] == 'both' then redis.call('SET', KEYS[3], ARGV[4], 'NX') end
-- Always: a front-end that found this worker silent may have taken the name off.
redis.call('SADD', KEYS[2], ARGV[1])
local now = redis.call('TIME')
return string.format('%.0f', now[1] * 1000000 + now[2])
