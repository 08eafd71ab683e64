//! What Redis does in one step.

use redis::Script;
use std::sync::LazyLock;
use std::time::Duration;

/// Numbers in Lua are exact up to here.
pub(super) const EXACT_MAX: u64 = 1 << 50;

/// Microseconds that Lua can count with.
pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(EXACT_MAX).clamp(1, EXACT_MAX)
}

/// The algorithm of `cell`, by the clock of Redis. Returns when the cell was whole before, and the time: the verdict follows
/// from these.
pub(super) static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local every, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local before = tonumber(redis.call('GET', KEYS[1]) or '0')
local whole = math.min(math.max(before, now), now + burst) + every
if ARGV[3] == '0' and whole - now <= burst then
  redis.call('SET', KEYS[1], string.format('%.0f', whole), 'PX', math.ceil((whole - now) / 1000))
end
return { before, now }
",
    )
});

/// Notes what this node says of each name for some seconds, and returns what others said that is still good.
pub(super) static COMPARE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all = {}
for i, key in ipairs(KEYS) do
  if ARGV[i + 1] == '0' then
    redis.call('HDEL', key, ARGV[1])
  else
    redis.call('HSET', key, ARGV[1], string.format('%.0f', now + 3000) .. ' ' .. ARGV[i + 1])
    redis.call('PEXPIRE', key, 10000)
  end
  local others = {}
  local said = redis.call('HGETALL', key)
  for j = 1, #said, 2 do
    local till, value = string.match(said[j + 1], '^(%d+) (%d+)$')
    if not till or tonumber(till) < now then
      redis.call('HDEL', key, said[j])
    elseif said[j] ~= ARGV[1] then
      others[#others + 1] = tonumber(value)
    end
  end
  all[i] = others
end
return all
",
    )
});

/// Notes that a node is there, unless another process is there under its name: then 1 comes first. After it the names of all
/// that are there, each followed by what it says of itself.
pub(super) static BEAT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, instance, about, lifetime = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local function there(value)
  local till, who, what = string.match(value, '^(%d+) (%x+) (.*)$')
  if till and tonumber(till) >= now then return who, what end
end
local mine = redis.call('HGET', KEYS[1], id)
local who = mine and there(mine)
local conflict = 0
if who and who ~= instance then
  conflict = 1
else
  redis.call('HSET', KEYS[1], id, string.format('%.0f', now + lifetime) .. ' ' .. instance .. ' ' .. about)
  redis.call('PEXPIRE', KEYS[1], 60000)
end
local nodes = { tostring(conflict) }
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local present, what = there(all[i + 1])
  if present then
    nodes[#nodes + 1] = all[i]
    nodes[#nodes + 1] = what
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return nodes
",
    )
});

/// Takes back what a process has said of itself.
pub(super) static LEAVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local mine = redis.call('HGET', KEYS[1], ARGV[1])
if mine and string.match(mine, '^%d+ (%x+) ') == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 1
",
    )
});
