-- clear_dead_letters: delete all dead letters of a model.
--
-- KEYS[1]  despacho:{m}:dead   dead-letter stream
-- KEYS[2]  despacho:{m}:load   bytes of dead letters
--
-- Returns how many there were.

-- Not DEL: the stream remembers its last id, so that no letter gets the name of
-- another one. XTRIM is allowed when memory is full, and then so is the rest.
local count = redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
if count > 0 then redis.call('HSET', KEYS[2], 'dead_bytes', 0) end
return count
