-- Ends a task whose part is durable: fence check, counters, acknowledgement and deletion in one step, so that there is
-- no moment between done and acknowledged.
-- KEYS: meta stream tasks leases held counters done
-- ARGV: generation, server, worker, entry, delivery, first row, last row, then for each status: name, rows
-- COMMITTED (also when this very delivery had been committed and the answer was lost); STALE or LOST: nothing was changed.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'server')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return 'LOST' end
local worker, entry, first, last = ARGV[3], ARGV[4], ARGV[6], ARGV[7]
local mark = last .. ':' .. ARGV[5]
local packed = redis.call('HGET', KEYS[3], entry)
if not packed then
  if redis.call('HGET', KEYS[7], first) == mark then return 'COMMITTED' end
  return 'STALE'
end
local record = cjson.decode(packed)
if record[1] ~= tonumber(ARGV[5]) or record[4] ~= worker then return 'STALE' end
local rows = tonumber(last) - tonumber(first) + 1
redis.call('HSET', KEYS[7], first, mark)
redis.call('HINCRBY', KEYS[6], 'queued', -rows)
redis.call('HINCRBY', KEYS[6], 'done', rows)
redis.call('HINCRBY', KEYS[6], 'commits', 1)
for index = 8, #ARGV, 2 do redis.call('HINCRBY', KEYS[6], 'status:' .. ARGV[index], ARGV[index + 1]) end
redis.call('XACK', KEYS[2], 'workers', entry)
redis.call('XDEL', KEYS[2], entry)
redis.call('HDEL', KEYS[3], entry)
redis.call('ZREM', KEYS[4], entry)
redis.call('HDEL', KEYS[5], worker)
return 'COMMITTED'
