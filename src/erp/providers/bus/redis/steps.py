"""What Redis does to topics, groups and dead letters in one indivisible step.

All keys of a connection have one hash tag, so a script may compute further ones on any node of a cluster. Behind the base:

s:<topic>         the stream of a topic; a field b is the event, k its key
d:<topic>:<id>    the position of an event that was published; forgotten with the event
n                 topic -> how often something may have become due
g, N              group of a topic -> its number; number -> ``topic:group`` (no topic contains a colon)
q:<number>:<key>  positions of a key that the group has taken and not confirmed, oldest first
k:<number>        position -> key, of those
p:<number>        positions that wait for an earlier one of their key and were never given; w:<number> that were
r:<number>        position -> why it was given back last
x                 the stream of dead letters

Redis' own list of pending entries (XPENDING) keeps what a group holds, with its deliveries. An entry is due when Redis calls it
idle for ``HORIZON``: to be due in *v* milliseconds it is claimed with a time of last delivery ``HORIZON - v`` ago (XCLAIM TIME).
"""

from __future__ import annotations

from erp.vendor_clients.redis.scripts import Script

HORIZON = 43_200_000
"""Milliseconds; the longest visibility and pause of the contract."""

_COMMON = f"""
local BASE, HORIZON = ARGV[1], {HORIZON}
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function whole(number) return string.format('%.0f', number) end
local function stream_of(topic) return BASE .. 's:' .. topic end
local function signal(topic) redis.call('HINCRBY', BASE .. 'n', topic, 1) end

local function field(fields, name)
  for i = 1, #fields, 2 do if fields[i] == name then return fields[i+1] end end
end

local function event_at(stream, id)
  local found = redis.call('XRANGE', stream, id, id)[1]
  return found and found[2]
end
"""

_GROUPS = """
local function known(topic, group)
  local number = redis.call('HGET', BASE .. 'g', topic .. ':' .. group)
  if not number then return nil end
  return {number = number, topic = topic, group = group, stream = stream_of(topic)}
end

local function opened(topic, group, start)
  local one = known(topic, group)
  if not one then
    local number = redis.call('HINCRBY', BASE .. 'g', '#', 1)
    redis.call('HSET', BASE .. 'g', topic .. ':' .. group, number)
    redis.call('HSET', BASE .. 'N', number, topic .. ':' .. group)
    one = {number = whole(number), topic = topic, group = group, stream = stream_of(topic), is_new = true}
  end
  if one.is_new or redis.call('EXISTS', one.stream) == 0 then
    redis.pcall('XGROUP', 'CREATE', one.stream, group, start, 'MKSTREAM')
  end
  return one
end

local function numbered(number)
  local name = redis.call('HGET', BASE .. 'N', number)
  if not name then return nil end
  local at = string.find(name, ':', 1, true)
  return known(string.sub(name, 1, at - 1), string.sub(name, at + 1))
end

local function pending(one, id)
  local rows = redis.pcall('XPENDING', one.stream, one.group, id, id, 1)
  return not rows.err and rows[1] or nil
end

local function claim(one, id, due_in, count)
  redis.call('XCLAIM', one.stream, one.group, 'erp', 0, id, 'TIME', whole(now + due_in - HORIZON),
    'RETRYCOUNT', count, 'FORCE', 'JUSTID')
end

local function queue_of(one, key) return BASE .. 'q:' .. one.number .. ':' .. key end
local function mine(one, kind) return BASE .. kind .. ':' .. one.number end

local function park(one, id, count)
  redis.call('SADD', mine(one, count == 0 and 'p' or 'w'), id)
  claim(one, id, HORIZON, count)
end

local function unpark(one, id)
  local waited = redis.call('SREM', mine(one, 'p'), id) + redis.call('SREM', mine(one, 'w'), id)
  return waited > 0
end

local function is_parked(one, id)
  return redis.call('SISMEMBER', mine(one, 'p'), id) + redis.call('SISMEMBER', mine(one, 'w'), id) > 0
end

local function forget(one, id)
  redis.call('XACK', one.stream, one.group, id)
  redis.call('HDEL', mine(one, 'r'), id)
  local key = redis.call('HGET', mine(one, 'k'), id)
  if not key then return end
  redis.call('HDEL', mine(one, 'k'), id)
  redis.call('LREM', queue_of(one, key), 0, id)
  unpark(one, id)
  return key
end

local function advance(one, key)
  if not key then return end
  local id = redis.call('LINDEX', queue_of(one, key), 0)
  if not id or not unpark(one, id) then return end
  local row = pending(one, id)
  if row then claim(one, id, 0, row[4]) end
  signal(one.topic)
end
"""

PUBLISH = Script(
    _COMMON,
    """
-- topic, retention, then for each event: id, key or '', body; answers position and whether it was there, for each
local topic, keep = ARGV[2], tonumber(ARGV[3])
local stream, answer = stream_of(topic), {}
for i = 4, #ARGV, 3 do
  local seen = BASE .. 'd:' .. topic .. ':' .. ARGV[i]
  local position, known = redis.call('GET', seen), 1
  if not position then
    known = 0
    local oldest = whole(math.max(now - keep, 0))
    if ARGV[i+1] == '' then
      position = redis.call('XADD', stream, 'MINID', '~', oldest, '*', 'b', ARGV[i+2])
    else
      position = redis.call('XADD', stream, 'MINID', '~', oldest, '*', 'b', ARGV[i+2], 'k', ARGV[i+1])
    end
    redis.call('SET', seen, position, 'PX', whole(keep))
  end
  answer[#answer+1] = position
  answer[#answer+1] = known
end
signal(topic)
return answer
""",
)

TAKE = Script(
    _COMMON,
    _GROUPS,
    """
-- topic, group, limit, visibility, deliveries at most, where a new group begins, retention
-- answers the given (position, key, body, deliveries, number of the group), the dead (body, deliveries), milliseconds to the next
local limit, visible, most, keep = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[8])
local one = opened(ARGV[2], ARGV[3], ARGV[7])
local given, died, in_order, rounds = {}, {}, {}, 20

local function may_be_given(id, key)
  return not key or redis.call('LINDEX', queue_of(one, key), in_order[key] or 0) == id
end

local function give(id, key, body, count)
  claim(one, id, visible, count)
  if key then in_order[key] = (in_order[key] or 0) + 1 end
  given[#given+1] = {id, key or '', body, count, one.number}
end

local function bury(id, key, body, count)
  local reason = redis.call('HGET', mine(one, 'r'), id) or ''
  redis.call('XADD', BASE .. 'x', 'MINID', '~', whole(math.max(now - keep, 0)), '*', 'topic', one.topic, 'group', one.group,
    'position', id, 'key', key or '', 'body', body, 'count', count, 'reason', reason)
  died[#died+1] = {body, count}
  advance(one, forget(one, id))
end

local function again(id, count)
  local fields = event_at(one.stream, id)
  if not fields then return advance(one, forget(one, id)) end
  local key, body = field(fields, 'k'), field(fields, 'b')
  if not may_be_given(id, key) then return park(one, id, count) end
  unpark(one, id)
  if count >= most then return bury(id, key, body, count) end
  give(id, key, body, count + 1)
end

local after = '-'
while #given < limit and rounds > 0 do
  rounds = rounds - 1
  local rows = redis.call('XPENDING', one.stream, one.group, 'IDLE', HORIZON, after, '+', 100)
  for _, row in ipairs(rows) do
    if #given < limit then again(row[1], row[4]) end
  end
  if #rows < 100 then break end
  after = '(' .. rows[#rows][1]
end

while #given < limit and rounds > 0 do
  rounds = rounds - 1
  local found = redis.call('XREADGROUP', 'GROUP', one.group, 'erp', 'COUNT', limit - #given, 'STREAMS', one.stream, '>')
  if not found then break end
  for _, entry in ipairs(found[1][2]) do
    local id, key, body = entry[1], field(entry[2], 'k'), field(entry[2], 'b')
    if key then
      redis.call('RPUSH', queue_of(one, key), id)
      redis.call('HSET', mine(one, 'k'), id, key)
    end
    if may_be_given(id, key) then give(id, key, body, 1) else park(one, id, 0) end
  end
end

local due_in = -1
if #given == 0 then
  for _, row in ipairs(redis.call('XPENDING', one.stream, one.group, '-', '+', 100)) do
    local left = math.max(HORIZON - row[3], 0)
    if not is_parked(one, row[1]) and (due_in < 0 or left < due_in) then due_in = left end
  end
end
return {given, died, due_in}
""",
)

_EACH_HELD = """
local function held(number, id, count)
  local one = numbered(number)
  local row = one and pending(one, id)
  if row and row[4] == tonumber(count) then return one end
end
"""

ACKNOWLEDGE = Script(
    _COMMON,
    _GROUPS,
    _EACH_HELD,
    """
-- for each: number of the group, position, deliveries
local confirmed = 0
for i = 2, #ARGV, 3 do
  local one = held(ARGV[i], ARGV[i+1], ARGV[i+2])
  if one then
    confirmed = confirmed + 1
    advance(one, forget(one, ARGV[i+1]))
  end
end
return confirmed
""",
)

GIVE_BACK = Script(
    _COMMON,
    _GROUPS,
    _EACH_HELD,
    """
-- pause, reason or '', how many deliveries not to count, then as ACKNOWLEDGE
local pause, reason, uncounted, returned = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), 0
for i = 5, #ARGV, 3 do
  local one = held(ARGV[i], ARGV[i+1], ARGV[i+2])
  if one then
    returned = returned + 1
    if not is_parked(one, ARGV[i+1]) then claim(one, ARGV[i+1], pause, tonumber(ARGV[i+2]) - uncounted) end
    if reason ~= '' then redis.call('HSET', mine(one, 'r'), ARGV[i+1], reason) end
    signal(one.topic)
  end
end
return returned
""",
)

DEAD = Script(
    _COMMON,
    """
-- topic or '', group or '', position after which, how many
local found, after, limit = {}, ARGV[4], tonumber(ARGV[5])
while #found < limit do
  local entries = redis.call('XRANGE', BASE .. 'x', after, '+', 'COUNT', 100)
  for _, entry in ipairs(entries) do
    local fits = (ARGV[2] == '' or field(entry[2], 'topic') == ARGV[2]) and (ARGV[3] == '' or field(entry[2], 'group') == ARGV[3])
    if fits and #found < limit then found[#found+1] = entry end
  end
  if #entries < 100 then break end
  after = '(' .. entries[#entries][1]
end
return found
""",
)

REQUEUE = Script(
    _COMMON,
    _GROUPS,
    """
-- ids of dead letters
local function insert(queue, id, is_before)
  for _, other in ipairs(redis.call('LRANGE', queue, 0, -1)) do
    if is_before(id, other) then return redis.call('LINSERT', queue, 'BEFORE', other, id) end
  end
  redis.call('RPUSH', queue, id)
end

local function is_before(id, other)
  local ms, number = string.match(id, '(%d+)-(%d+)')
  local other_ms, other_number = string.match(other, '(%d+)-(%d+)')
  if ms ~= other_ms then return tonumber(ms) < tonumber(other_ms) end
  return tonumber(number) < tonumber(other_number)
end

local requeued = 0
for i = 2, #ARGV do
  local letter = event_at(BASE .. 'x', ARGV[i])
  local id = letter and field(letter, 'position')
  if letter and event_at(stream_of(field(letter, 'topic')), id) then
    local one, key = opened(field(letter, 'topic'), field(letter, 'group'), '0'), field(letter, 'key')
    if key ~= '' then
      redis.call('LREM', queue_of(one, key), 0, id)
      insert(queue_of(one, key), id, is_before)
      redis.call('HSET', mine(one, 'k'), id, key)
    end
    claim(one, id, 0, 0)
    redis.call('XDEL', BASE .. 'x', ARGV[i])
    signal(one.topic)
    requeued = requeued + 1
  end
end
return requeued
""",
)

MOVE = Script(
    _COMMON,
    _GROUPS,
    """
-- topic, group, position or '', else milliseconds
local one, target = opened(ARGV[2], ARGV[3], '0'), ARGV[4]
if target == '' then
  local before = redis.call('XREVRANGE', one.stream, '(' .. ARGV[5] .. '-0', '-', 'COUNT', 1)[1]
  target = before and before[1] or '0-0'
end
redis.call('XGROUP', 'SETID', one.stream, one.group, target)
while true do
  local rows = redis.call('XPENDING', one.stream, one.group, '(' .. target, '+', 1000)
  for _, row in ipairs(rows) do advance(one, forget(one, row[1])) end
  if #rows < 1000 then break end
end
signal(one.topic)
return target
""",
)

LAG = Script(
    _COMMON,
    _GROUPS,
    """
-- topic, group; answers waiting, unacknowledged, age of the oldest of them or -1
local stream, one = stream_of(ARGV[2]), known(ARGV[2], ARGV[3])
local function age_of(id) return id and now - tonumber(string.match(id, '^%d+')) or -1 end
local function first_after(id)
  local found = redis.call('XRANGE', stream, '(' .. id, '+', 'COUNT', 1)[1]
  return found and found[1]
end
local function count_after(id)
  local count = 0
  while true do
    local found = redis.call('XRANGE', stream, '(' .. id, '+', 'COUNT', 1000)
    count = count + #found
    if #found < 1000 then return count end
    id = found[#found][1]
  end
end
if redis.call('EXISTS', stream) == 0 then return {0, 0, -1} end
if not one then return {redis.call('XLEN', stream), 0, age_of(first_after('0-0'))} end
local last, waiting = '0-0', nil
for _, facts in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  if field(facts, 'name') == one.group then
    last, waiting = field(facts, 'last-delivered-id'), field(facts, 'lag')
  end
end
if not waiting then waiting = count_after(last) end
local summary = redis.call('XPENDING', stream, one.group)
local parked = redis.call('SCARD', mine(one, 'p'))
return {waiting + parked, summary[1] - parked, math.max(age_of(first_after(last)), age_of(summary[2]))}
""",
)

FORGET = Script(
    _COMMON,
    """
-- retention; answers when the oldest thing that is kept was published or set aside, in milliseconds, or -1
local before = whole(math.max(now - tonumber(ARGV[2]), 0))
local oldest = -1
local streams = {BASE .. 'x'}
for _, topic in ipairs(redis.call('HKEYS', BASE .. 'n')) do streams[#streams+1] = stream_of(topic) end
for _, stream in ipairs(streams) do
  redis.call('XTRIM', stream, 'MINID', before)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local at = first and tonumber(string.match(first[1], '^%d+')) or -1
  if at >= 0 and (oldest < 0 or at < oldest) then oldest = at end
end
return oldest
""",
)
