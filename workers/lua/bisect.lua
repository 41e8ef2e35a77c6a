-- Puts the two halves of a task in its place; the rows that are queued stay the same.
-- KEYS: meta stream tasks leases held counters   ARGV: generation, server, worker, entry, delivery, left, right (messages)
-- BISECTED; STALE (not this worker's, or done before) or LOST: nothing was changed. A half goes on with the delivery of
-- its whole, so that its parts have a higher fence, and is suspect: it is bisected at its first crash.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'server')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return 'LOST' end
local packed = redis.call('HGET', KEYS[3], ARGV[4])
if not packed then return 'STALE' end
local record = cjson.decode(packed)
if record[1] ~= tonumber(ARGV[5]) or record[4] ~= ARGV[3] then return 'STALE' end
for index = 6, 7 do
  local half = redis.call('XADD', KEYS[2], '*', 'task', ARGV[index])
  redis.call('HSET', KEYS[3], half, cjson.encode({record[1], 0, record[3], '', 1}))
end
redis.call('XACK', KEYS[2], 'workers', ARGV[4])
redis.call('XDEL', KEYS[2], ARGV[4])
redis.call('HDEL', KEYS[3], ARGV[4])
redis.call('ZREM', KEYS[4], ARGV[4])
redis.call('HDEL', KEYS[5], ARGV[3])
redis.call('HINCRBY', KEYS[6], 'bisections', 1)
return 'BISECTED'
