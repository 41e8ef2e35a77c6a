-- Gives a task back at once: its lease ends now, and the next claim takes it.
-- KEYS: meta tasks deliveries leases bodies counters   ARGV: generation, message id, delivery
-- Answers OK, STALE or LOST.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return 'LOST' end
if redis.call('HGET', KEYS[3], ARGV[2]) ~= ARGV[3] then return 'STALE' end
redis.call('ZADD', KEYS[4], 0, ARGV[2])
return 'OK'
