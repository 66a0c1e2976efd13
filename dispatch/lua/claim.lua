-- claim: take waiting jobs, those of the first streams first, as far as there is room.
--
-- KEYS[1..]  despacho:{m}:jobs:<p>   job streams, highest priority first
-- ARGV[1]    consumer group
-- ARGV[2]    this worker
-- ARGV[3]    most jobs
-- ARGV[4]    room, bytes; the last job may exceed it
--
-- Returns {index of the stream, entry id, fields} of each job.
-- Fails only before anything was taken: NOGROUP where there is no queue.

local group, me = ARGV[1], ARGV[2]
local jobs, bytes = tonumber(ARGV[3]), tonumber(ARGV[4])

local function size_of(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'size' then return tonumber(fields[i + 1]) or 0 end
  end
  return 0
end

local taken = {}
for index = 1, #KEYS do
  while jobs > 0 and bytes > 0 do
    -- One by one: how large the next one is, only the next one says.
    local read = redis.pcall('XREADGROUP', 'GROUP', group, me, 'COUNT', 1, 'STREAMS', KEYS[index], '>')
    if read and read.err then
      -- What was taken is ours, and must be told.
      if #taken == 0 then return read end
      return taken
    end
    if not read then break end
    local entry = read[1][2][1]
    taken[#taken + 1] = {index, entry[1], entry[2]}
    jobs, bytes = jobs - 1, bytes - size_of(entry[2])
  end
end
return taken
