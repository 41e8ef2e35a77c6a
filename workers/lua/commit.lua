-- Ends a task: fence check, counters, acknowledgement and deletion in one step, so that there is no moment between.
-- KEYS: meta tasks deliveries leases bodies counters   ARGV: generation, message id, delivery, rows, then status, count …
-- Answers OK, STALE or LOST; changes nothing unless OK.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return 'LOST' end
if redis.call('HGET', KEYS[3], ARGV[2]) ~= ARGV[3] then return 'STALE' end
redis.call('HINCRBY', KEYS[6], 'queued', -tonumber(ARGV[4]))
redis.call('HINCRBY', KEYS[6], 'done', ARGV[4])
for index = 5, #ARGV, 2 do redis.call('HINCRBY', KEYS[6], ARGV[index], ARGV[index + 1]) end
redis.call('XACK', KEYS[2], 'workers', ARGV[2])
redis.call('XDEL', KEYS[2], ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[2])
redis.call('HDEL', KEYS[5], ARGV[2])
redis.call('ZREM', KEYS[4], ARGV[2])
return 'OK'
