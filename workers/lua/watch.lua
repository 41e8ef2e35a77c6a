-- Looks at the queue for the driver and keeps its keys from expiring, which they do when nobody looks for long.
-- KEYS: meta stream tasks leases delayed held counters done workers   ARGV: generation, server, ttl in ms ('' for no change)
-- {'WATCHED', now, why halted or '', counters, heartbeats} or {'LOST'}.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'server', 'halt')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return {'LOST'} end
if ARGV[3] ~= '' then
  for index = 1, #KEYS do redis.call('PEXPIRE', KEYS[index], ARGV[3]) end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {'WATCHED', now, meta[3] or '', redis.call('HGETALL', KEYS[7]), redis.call('HGETALL', KEYS[9])}
