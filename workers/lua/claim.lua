-- Gives one task to a worker under a lease: what the worker holds already (the answer to an earlier claim was lost), a
-- lease that expired, a task whose delay is over, a new task; in this order.
-- KEYS: meta stream tasks leases delayed held   ARGV: generation, server, worker
-- {'CLAIMED', entry, message, delivery, crashes, errors, mode}, {'EMPTY'}, {'HALTED', why}, or {'LOST'}; only CLAIMED
-- changes the queue. The delivery grows with every claim of a task, so whoever held it before has a stale fence. An
-- expired lease is a crash. Modes: run; isolate (errors used up: row by row); bisect (crashes used up); quarantine
-- (crashes used up by a single row).
local meta = redis.call('HMGET', KEYS[1], 'generation', 'server', 'halt', 'lease_ms', 'checked', 'max_errors', 'max_crashes')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return {'LOST'} end
if meta[3] then return {'HALTED', meta[3]} end
local worker, lease = ARGV[3], tonumber(meta[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function record_of(entry)
  local packed = redis.call('HGET', KEYS[3], entry)
  if packed then return cjson.decode(packed) end
  return {0, 0, 0, '', 0}
end

local entry, record, message
local held = redis.call('HGET', KEYS[6], worker)
if held then
  local known = record_of(held)
  if known[4] == worker then entry, record = held, known end
end
if not entry and now - tonumber(meta[5]) >= lease / 4 then
  entry = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 1)[1]
  if entry then
    record = record_of(entry)
    redis.call('HDEL', KEYS[6], record[4])
    record[1], record[2] = record[1] + 1, record[2] + 1
  else
    -- Only once none is left: the next claim looks again otherwise.
    redis.call('HSET', KEYS[1], 'checked', now)
  end
end
if not entry then
  entry = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, 1)[1]
  if entry then
    redis.call('ZREM', KEYS[5], entry)
    record = record_of(entry)
    record[1] = record[1] + 1
  end
end
if entry then
  redis.call('XCLAIM', KEYS[2], 'workers', worker, 0, entry, 'JUSTID')
  message = redis.call('XRANGE', KEYS[2], entry, entry)[1][2][2]
else
  local reply = redis.call('XREADGROUP', 'GROUP', 'workers', worker, 'COUNT', 1, 'STREAMS', KEYS[2], '>')
  if not reply then return {'EMPTY'} end
  entry, message = reply[1][2][1][1], reply[1][2][1][2][2]
  record = record_of(entry)
  record[1] = record[1] + 1
end
record[4] = worker
redis.call('HSET', KEYS[3], entry, cjson.encode(record))
redis.call('HSET', KEYS[6], worker, entry)
redis.call('ZADD', KEYS[4], now + lease, entry)

local task, mode = cjson.decode(message), 'run'
local is_single = task['first_row'] == task['last_row']
-- Half of a task that used up its crashes is bisected at its first one; a single row gets all of them, in doubt.
local crashes_allowed = math.max(1, tonumber(meta[7]))
if record[5] == 1 and not is_single then crashes_allowed = 1 end
if record[2] >= crashes_allowed then
  mode = is_single and 'quarantine' or 'bisect'
elseif record[3] >= math.max(1, tonumber(meta[6])) then
  mode = 'isolate'
end
return {'CLAIMED', entry, message, record[1], record[2], record[3], mode}
