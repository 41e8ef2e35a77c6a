-- Adds tasks in the order of their rows, as many as the bound allows.
-- KEYS: meta stream counters   ARGV: generation, server, then for each task: first row, last row, message
-- {'PUT', n}: the first n tasks are in the queue; those whose rows were put before count and are not put again, so the
-- same call may be repeated. {'LOST'}: nothing was changed.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'server', 'max_rows')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return {'LOST'} end
local counters = redis.call('HMGET', KEYS[3], 'queued', 'fed')
local queued, fed, bound = tonumber(counters[1]), tonumber(counters[2]), tonumber(meta[3])
local taken = 0
for index = 3, #ARGV, 3 do
  local first, last = tonumber(ARGV[index]), tonumber(ARGV[index + 1])
  if last > fed then
    local rows = last - first + 1
    -- A task that is larger than the bound is let in alone: it would wait for ever.
    if queued > 0 and queued + rows > bound then break end
    redis.call('XADD', KEYS[2], '*', 'task', ARGV[index + 2])
    queued, fed = queued + rows, last
  end
  taken = taken + 1
end
redis.call('HSET', KEYS[3], 'queued', queued, 'fed', fed)
return {'PUT', taken}
