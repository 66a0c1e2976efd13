-- listen: create or renew the reply stream of a front-end process.
--
-- KEYS[1]  despacho:{m}:replies:<server>  reply stream
-- ARGV[1]  how long it lives without being renewed, milliseconds
--
-- Returns  1  created, empty
--          0  renewed

if redis.call('PEXPIRE', KEYS[1], ARGV[1]) == 1 then return 0 end
-- An entry that is trimmed at once leaves an empty stream.
redis.call('XADD', KEYS[1], 'MAXLEN', '=', 0, '*', 'open', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
