-- missing: tell which jobs are neither waiting nor claimed.
--
-- KEYS[1..3]  despacho:{m}:jobs:<p>   job streams, highest priority first
-- KEYS[4..]   despacho:{m}:job:<id>   where the entry of each job is
-- ARGV[1]     consumer group
--
-- Returns the positions, from 1, of the job keys whose job is missing: it was
-- retired and its reply is on its way or lost, or Redis lost the job itself.

local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

-- An entry after the last delivered one still waits; its payload is not read.
local last = {}
for i = 1, 3 do
  local groups = redis.pcall('XINFO', 'GROUPS', KEYS[i])
  if not groups.err then
    for _, fields in ipairs(groups) do
      local group = {}
      for j = 1, #fields, 2 do group[fields[j]] = fields[j + 1] end
      if group['name'] == ARGV[1] then last[i] = group['last-delivered-id'] end
    end
  end
end

local function is_here(where)
  if not where or where == 'void' then return false end
  local index, entry = tonumber(string.sub(where, 1, 1)), string.sub(where, 3)
  if not last[index] then return redis.call('XLEN', KEYS[index]) > 0 end
  local ms, seq = parts(entry)
  local last_ms, last_seq = parts(last[index])
  if ms > last_ms or (ms == last_ms and seq > last_seq) then return true end
  return #redis.call('XPENDING', KEYS[index], ARGV[1], entry, entry, 1) > 0
end

local missing = {}
for i = 4, #KEYS do
  if not is_here(redis.call('GET', KEYS[i])) then missing[#missing + 1] = i - 3 end
end
return missing
