-- register: remember that a model was served, or that a front-end lives.
--
-- KEYS[1]  despacho:models or despacho:front-ends  names of all
-- ARGV[1]  name of the model or the front-end
--
-- Returns  1  it was not known
--          0  it was

-- SREM comes first because it is allowed when memory is full, and then so is the rest.
redis.call('SREM', KEYS[1], '')
return redis.call('SADD', KEYS[1], ARGV[1])
