-- Gives one task under a lease: an expired one first, else a new one.
-- KEYS: meta tasks deliveries leases bodies counters   ARGV: generation, consumer, lease in ms
-- Answers {'OK', message id, message, delivery}, {'EMPTY'} or {'LOST'}. The delivery grows with every claim of a task,
-- whoever claims it, so that an older holder's commit is refused.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return {'LOST'} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, message
local expired = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 1)
if expired[1] then
  id = expired[1]
  message = redis.call('HGET', KEYS[5], id)
else
  local reply = redis.call('XREADGROUP', 'GROUP', 'workers', ARGV[2], 'COUNT', 1, 'STREAMS', KEYS[2], '>')
  if not reply then return {'EMPTY'} end
  id = reply[1][2][1][1]
  message = reply[1][2][1][2][2]
  redis.call('HSET', KEYS[5], id, message)
end
redis.call('ZADD', KEYS[4], now + tonumber(ARGV[3]), id)
local delivery = redis.call('HINCRBY', KEYS[3], id, 1)
return {'OK', id, message, delivery}
