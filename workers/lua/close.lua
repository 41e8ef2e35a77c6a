-- Deletes every key of the run when the generation is the current one, also after a restart of Redis.
-- KEYS: meta stream tasks leases delayed held counters done workers   ARGV: generation, server
-- CLOSED; LOST: there was nothing, or another generation's, which is left alone.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return 'LOST' end
for index = 1, #KEYS do redis.call('UNLINK', KEYS[index]) end
return 'CLOSED'
