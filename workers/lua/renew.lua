-- Notes that a worker lives, and lengthens the lease of the task that it holds, if it does.
-- KEYS: meta stream tasks leases workers   ARGV: generation, server, worker, heartbeat, entry ('' for none), delivery
-- RENEWED; STALE: the task is no longer this worker's; LOST: nothing was changed. No delivery is counted.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'server', 'lease_ms')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return 'LOST' end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[5], ARGV[3], cjson.encode({now, ARGV[4]}))
if ARGV[5] == '' then return 'RENEWED' end
local packed = redis.call('HGET', KEYS[3], ARGV[5])
if not packed then return 'STALE' end
local record = cjson.decode(packed)
if record[1] ~= tonumber(ARGV[6]) or record[4] ~= ARGV[3] then return 'STALE' end
redis.call('ZADD', KEYS[4], 'XX', now + tonumber(meta[3]), ARGV[5])
-- JUSTID: the stream's own delivery count stays as it is.
redis.call('XCLAIM', KEYS[2], 'workers', ARGV[3], 0, ARGV[5], 'IDLE', 0, 'JUSTID')
return 'RENEWED'
