"""What Redis does to entries in one indivisible step.

All keys of a connection have one hash tag, so a script may compute further ones (an entry's tags) on any node of a cluster.
A tag is a sorted set of the keys that carry it, each with the time when its entry dies. It has no lifetime of its own, or
Redis could drop it when it is full and its entries would outlive an invalidation. Keys whose entries have died are dropped
at every write of the tag; and every write of any tag looks at a few tags (``INDEX``) whose last entry has died.
"""

from __future__ import annotations

from erp.providers.cache.redis.envelopes import DEATH, HEAD, IDLE, LENGTH, VERSION
from erp.vendor_clients.redis.scripts import Script

_COMMON = f"""
local ENTRIES, TAGS = ARGV[1], ARGV[2]
local INDEX = string.sub(TAGS, 1, -2)
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function whole(number) return string.format('%.0f', number) end

local function facts_of(name)
  local head = redis.call('GETRANGE', ENTRIES .. name, 0, {HEAD - 1})
  if head == '' then return nil end
  local facts = {{version = string.sub(head, 1, {VERSION}), idle = 0, dies = 0, tags = {{}}, at = {VERSION + 1}}}
  if string.sub(head, {VERSION + 1}, {VERSION + 1}) ~= '[' then return facts end
  facts.rich = true
  facts.idle = tonumber(string.sub(head, {VERSION + 2}, {VERSION + 1 + IDLE}))
  facts.dies = tonumber(string.sub(head, {VERSION + 2 + IDLE}, {VERSION + 1 + IDLE + DEATH}))
  local length = tonumber(string.sub(head, {HEAD - LENGTH + 1}, {HEAD}))
  facts.at = {HEAD} + length
  if length > 0 then
    facts.tags = cjson.decode(redis.call('GETRANGE', ENTRIES .. name, {HEAD}, {HEAD - 1} + length))
  end
  return facts
end

local function prune(tag)
  local key = TAGS .. tag
  redis.call('ZREMRANGEBYSCORE', key, '-inf', whole(now))
  local last = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2]
  if last then redis.call('ZADD', INDEX, last, tag) else redis.call('ZREM', INDEX, tag) end
end

local function untag(name, facts)
  for _, tag in ipairs(facts.tags) do
    redis.call('ZREM', TAGS .. tag, name)
    prune(tag)
  end
end

local function tag(name, tags, dies)
  local score = dies > 0 and whole(dies) or '+inf'
  for _, one in ipairs(tags) do
    redis.call('ZADD', TAGS .. one, score, name)
    prune(one)
  end
  if #tags == 0 then return end
  for _, one in ipairs(redis.call('ZRANGEBYSCORE', INDEX, '-inf', whole(now), 'LIMIT', 0, 5)) do prune(one) end
end

local function end_of(idle, dies)
  if idle == 0 then return dies end
  if dies == 0 then return now + idle end
  return math.min(dies, now + idle)
end

local function restart(name, facts)
  if facts.idle == 0 then return end
  local ends = end_of(facts.idle, facts.dies)
  redis.call('PEXPIREAT', ENTRIES .. name, whole(ends))
  tag(name, facts.tags, ends)
end

local function remove(name, facts)
  untag(name, facts)
  redis.call('UNLINK', ENTRIES .. name)
end
"""

WRITE = Script(
    _COMMON,
    f"""
-- ARGV[3]: the version that must be there, '-' for none, '' for any
-- then for each entry: name, version, data, ttl, idle, tags, whether the tags are any
local expected = ARGV[3]
if expected ~= '' then
  local present = facts_of(ARGV[4])
  if (present and present.version or '-') ~= expected then
    return {{0, present and present.version or ''}}
  end
end
for i = 4, #ARGV, 6 do
  local name, version, data, ttl, idle, tags = ARGV[i], ARGV[i+1], ARGV[i+2], tonumber(ARGV[i+3]), tonumber(ARGV[i+4]), ARGV[i+5]
  local before = facts_of(name)
  if before then untag(name, before) end
  local dies = ttl > 0 and now + ttl or 0
  local ends = end_of(idle, dies)
  local head = version .. '\\n'
  if idle > 0 or tags ~= '' then
    head = version .. '[' .. string.format('%0{IDLE}.0f%0{DEATH}.0f%0{LENGTH}.0f', idle, dies, #tags) .. tags
  end
  if ends > 0 then
    redis.call('SET', ENTRIES .. name, head .. data, 'PXAT', whole(ends))
  else
    redis.call('SET', ENTRIES .. name, head .. data)
  end
  if tags ~= '' then tag(name, cjson.decode(tags), ends) end
end
return {{1, ''}}
""",
)

TOUCH = Script(
    _COMMON,
    """
-- for each entry: name, the version of which to restart the time to idle, '' for any
local found = {}
for i = 3, #ARGV, 2 do
  local facts = facts_of(ARGV[i])
  local is_there = facts ~= nil and (ARGV[i+1] == '' or ARGV[i+1] == facts.version)
  if is_there then restart(ARGV[i], facts) end
  found[#found+1] = is_there and 1 or 0
end
return found
""",
)

EXPIRE = Script(
    _COMMON,
    f"""
local name, ttl = ARGV[3], tonumber(ARGV[4])
local facts = facts_of(name)
if not facts then return 0 end
local dies = now + ttl
local ends = end_of(facts.idle, dies)
if facts.rich then
  redis.call('SETRANGE', ENTRIES .. name, {VERSION + 1 + IDLE}, string.format('%0{DEATH}.0f', dies))
end
redis.call('PEXPIREAT', ENTRIES .. name, whole(ends))
tag(name, facts.tags, ends)
return 1
""",
)

DELETE = Script(
    _COMMON,
    """
local removed = 0
for i = 3, #ARGV do
  local facts = facts_of(ARGV[i])
  if facts then
    remove(ARGV[i], facts)
    removed = removed + 1
  end
end
return removed
""",
)

DELETE_TAGGED = Script(
    _COMMON,
    """
-- ARGV[3]: how many entries at once, then the tags; answers how many went, and whether some are left
local left, removed = tonumber(ARGV[3]), 0
for i = 4, #ARGV do
  local key = TAGS .. ARGV[i]
  for _, name in ipairs(redis.call('ZRANGE', key, 0, left - 1)) do
    left = left - 1
    local facts = facts_of(name)
    local carries = false
    for _, one in ipairs(facts and facts.tags or {}) do carries = carries or one == ARGV[i] end
    if carries then
      remove(name, facts)
      removed = removed + 1
    else
      redis.call('ZREM', key, name)
      prune(ARGV[i])
    end
  end
  if left == 0 then return {removed, 1} end
end
return {removed, 0}
""",
)

INCREMENT = Script(
    _COMMON,
    """
-- name, version, by, initial, ttl; numbers that JSON readers do not keep exactly (beyond 2^53) are refused
local MOST = 9007199254740991
local name, version, by, start, ttl = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local key, facts, value = ENTRIES .. name, facts_of(name), start
if facts then
  local text = redis.call('STRLEN', key) - facts.at <= 20 and redis.call('GETRANGE', key, facts.at, -1) or ''
  if not string.match(text, '^-?%d+$') then return {0, 'NOT_A_NUMBER', ''} end
  value = tonumber(text)
end
local sum = value + by
if math.abs(value) > MOST or math.abs(sum) > MOST then return {0, 'OUT_OF_RANGE', ''} end
if not facts then
  redis.call('SET', key, version .. '\\n' .. whole(sum))
  if ttl > 0 then redis.call('PEXPIRE', key, whole(ttl)) end
else
  local head = redis.call('GETRANGE', key, #version, facts.at - 1)
  redis.call('SET', key, version .. head .. whole(sum), 'KEEPTTL')
  restart(name, facts)
end
return {1, whole(sum), version}
""",
)
