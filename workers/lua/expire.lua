-- Ends the lease of a worker that is known to be dead, so that nobody waits for it, and forgets its heartbeat.
-- KEYS: meta tasks leases held workers   ARGV: generation, server, worker
-- EXPIRED (also when it held nothing) or LOST: nothing was changed. Whoever claims the task counts the crash.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'server')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return 'LOST' end
redis.call('HDEL', KEYS[5], ARGV[3])
local entry = redis.call('HGET', KEYS[4], ARGV[3])
if not entry then return 'EXPIRED' end
local packed = redis.call('HGET', KEYS[2], entry)
if packed and cjson.decode(packed)[4] == ARGV[3] then
  redis.call('ZADD', KEYS[3], 'XX', 0, entry)
  redis.call('HSET', KEYS[1], 'checked', 0)
end
return 'EXPIRED'
