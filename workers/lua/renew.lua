-- Lengthens a lease that is still held.
-- KEYS: meta tasks deliveries leases bodies counters   ARGV: generation, message id, delivery, lease in ms
-- Answers OK, STALE (another delivery holds the task, or it is done) or LOST. A delivery is not counted.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return 'LOST' end
if redis.call('HGET', KEYS[3], ARGV[2]) ~= ARGV[3] then return 'STALE' end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[4], time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[4]), ARGV[2])
return 'OK'
