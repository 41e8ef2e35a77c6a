-- Adds one task when its rows fit under the bound.
-- KEYS: meta tasks deliveries leases bodies counters   ARGV: generation, message, rows, bound
-- Answers OK, FULL or LOST; changes nothing unless OK.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return 'LOST' end
local queued = tonumber(redis.call('HGET', KEYS[6], 'queued') or '0')
if queued > 0 and queued + tonumber(ARGV[3]) > tonumber(ARGV[4]) then return 'FULL' end
redis.call('XADD', KEYS[2], '*', 'task', ARGV[2])
redis.call('HINCRBY', KEYS[6], 'queued', ARGV[3])
return 'OK'
