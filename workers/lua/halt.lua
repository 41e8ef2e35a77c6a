-- Says why nothing more is to be claimed; the first reason counts.
-- KEYS: meta   ARGV: generation, server, why
-- HALTED or LOST: nothing was changed.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'server')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return 'LOST' end
redis.call('HSETNX', KEYS[1], 'halt', ARGV[3])
return 'HALTED'
