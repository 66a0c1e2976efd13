-- announce_front_end: say that a front-end lives and what it has done.
--
-- KEYS[1]  despacho:front-end:<server>  this front-end
-- ARGV[1]  how long it lives without another word, milliseconds
-- ARGV[2]  encoded FrontEndCard
--
-- Returns nothing of use.

-- PEXPIRE comes first: it is allowed when memory is full, and then so is the rest.
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
