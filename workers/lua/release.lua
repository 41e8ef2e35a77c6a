-- Gives a task back at once and without a count: its worker is asked to end.
-- KEYS: meta tasks leases delayed held   ARGV: generation, server, worker, entry, delivery
-- RELEASED; STALE (not this worker's, or given back before) or LOST: nothing was changed.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'server')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return 'LOST' end
local packed = redis.call('HGET', KEYS[2], ARGV[4])
if not packed then return 'STALE' end
local record = cjson.decode(packed)
if record[1] ~= tonumber(ARGV[5]) or record[4] ~= ARGV[3] then return 'STALE' end
record[4] = ''
redis.call('HSET', KEYS[2], ARGV[4], cjson.encode(record))
redis.call('ZREM', KEYS[3], ARGV[4])
redis.call('ZADD', KEYS[4], 0, ARGV[4])
redis.call('HDEL', KEYS[5], ARGV[3])
return 'RELEASED'
