-- delete_operation: forget an operation that has ended.
--
-- KEYS[1]  despacho:{m}:operation:<id>       its record
-- KEYS[2]  despacho:{m}:operations:<caller>  ids of the caller's operations by time
-- ARGV[1]  caller
-- ARGV[2]  id of the operation
--
-- Returns  1  forgotten
--          0  the caller has no such operation, or it has not ended

local caller = redis.call('HGET', KEYS[1], 'caller')
-- One whose time is over is still in the index, which bounds how many a caller may have.
if not caller then redis.call('ZREM', KEYS[2], ARGV[2]) end
if caller ~= ARGV[1] then return 0 end
if redis.call('HEXISTS', KEYS[1], 'ended') == 0 then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[2])
return 1
