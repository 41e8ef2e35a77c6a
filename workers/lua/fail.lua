-- Gives a task back after an error that its handler raised: counted, and to be claimed again after a delay.
-- KEYS: meta tasks leases delayed held counters   ARGV: generation, server, worker, entry, delivery, delay in ms
-- FAILED; STALE (not this worker's, or given back before) or LOST: nothing was changed.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'server')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return 'LOST' end
local packed = redis.call('HGET', KEYS[2], ARGV[4])
if not packed then return 'STALE' end
local record = cjson.decode(packed)
if record[1] ~= tonumber(ARGV[5]) or record[4] ~= ARGV[3] then return 'STALE' end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
record[3], record[4] = record[3] + 1, ''
redis.call('HSET', KEYS[2], ARGV[4], cjson.encode(record))
redis.call('ZREM', KEYS[3], ARGV[4])
redis.call('ZADD', KEYS[4], now + tonumber(ARGV[6]), ARGV[4])
redis.call('HDEL', KEYS[5], ARGV[3])
redis.call('HINCRBY', KEYS[6], 'failures', 1)
return 'FAILED'
