-- Makes the queue of a generation the run's current one, in the place of an older one, whose keys are deleted.
-- KEYS: meta stream tasks leases delayed held counters done workers, then the same but meta of the generation before
-- ARGV: generation, server, generation before ('' for none), bound in rows, lease in ms, max errors, max crashes, ttl in ms
-- OPENED: it is the current one (also when it was already). STALE: a later one is, or this one came from a Redis that
-- was restarted since. MOVED: the generation before isn't the one that was said; read it again.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'server')
if meta[1] == ARGV[1] then
  if meta[2] == ARGV[2] then return 'OPENED' end
  return 'STALE'
end
if (meta[1] or '') ~= ARGV[3] then return 'MOVED' end
if meta[1] and tonumber(meta[1]) > tonumber(ARGV[1]) then return 'STALE' end
redis.call('UNLINK', KEYS[1])
for index = 2, #KEYS do redis.call('UNLINK', KEYS[index]) end
redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'server', ARGV[2], 'max_rows', ARGV[4], 'lease_ms', ARGV[5],
  'max_errors', ARGV[6], 'max_crashes', ARGV[7], 'checked', 0)
-- From 0, not from '$': entries that are there before the first reader are read too.
redis.call('XGROUP', 'CREATE', KEYS[2], 'workers', '0', 'MKSTREAM')
redis.call('HSET', KEYS[7], 'queued', 0, 'done', 0, 'fed', -1)
redis.call('PEXPIRE', KEYS[1], ARGV[8])
redis.call('PEXPIRE', KEYS[2], ARGV[8])
redis.call('PEXPIRE', KEYS[7], ARGV[8])
return 'OPENED'
