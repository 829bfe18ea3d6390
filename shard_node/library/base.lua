#!lua name=tallystick
-- All that a shard does atomically: accounts, transfers and journals on one shard, and the shard's
-- half of two-phase commit. Each function answers a whole batch.
--
-- Redis loads one text: these files are put together in the order of __init__.py, and what one of them
-- defines, the later ones use.
--
-- Invariants kept here (the rules R1-R8 are told in ARCHITECTURE.md):
--   * a function checks everything before its first write, for an error does not roll back;
--   * the fence (cluster, shard, epoch) of the caller equals the shard's, or nothing is written;
--   * every amount and balance stays within +-(2^53 - 1), where Lua's doubles are exact;
--   * an outcome is written once (R1), an applied leg is remembered (R4).
--
-- Arguments:  [1] fence   [2] oldest and [3] newest UUIDv7 time in the batch, where ids are decided
--             [last] the batch: a MessagePack array of columns of equal length
-- The layouts of packed values are told, and read, by records.py.

local MAX_MINOR = 9007199254740991
local NO_BALANCE = 9007199254740992
-- Lua's unpack() stops near 8000 values.
local CHUNK = 4000
-- Prepared credits above this are counted, see credit_refusal. 2^36: some 687 million euros.
local BIG = 68719476736

local COMMITTED = 1
local INSUFFICIENT_FUNDS = 2
local CURRENCY_MISMATCH = 3
local ACCOUNT_FROZEN = 4
local ACCOUNT_CLOSED = 5
local BALANCE_LIMIT = 6
local ACCOUNT_NOT_FOUND = 7
local TRANSACTION_ID_REUSED = 8
local TRANSACTION_ID_EXPIRED = 9
local ABORTED = 10
local ACCOUNT_EXISTS = 11
local OUTCOME_UNKNOWN = 13
local REFUND_EXCEEDS_PURCHASE = 16
local HOLD_NOT_ACTIVE = 18
local CAPTURE_EXCEEDS_HOLD = 19
local TRANSFER_LIMIT = 20
local ACCOUNT_NOT_EMPTY = 21
local ACCOUNT_IN_USE = 22
local VALID = 23
local PREPARED = 32
local APPLIED = 33
local FINISHED = 34
local DROPPED = 35
local SETTLED = 36
local MISSING_LEG = 37
local ELSEWHERE = 39
local ENDED = 40
-- Added to a refusal that concerns the payee's account.
local PAYEE = 64

-- An account's state is one of these, plus LIMITED when it has an entry in `limits`.
local OPEN = 0
local FROZEN = 1
local CLOSED = 2
local LIMITED = 4

local ACCOUNT = '<i8i8i8i8Bc3'
-- maximum balance, maximum transfer; 0 for none
local LIMITS = '<i8i8'

-- Bound by the first call: while a library loads, the standard modules cannot be reached.
local byte, sub, char

---------------------------------------------------------------- hashes, a batch at a time

local function hmget(key, fields)
  local count = #fields
  if count == 0 then
    return {}
  end
  if count <= CHUNK then
    return redis.call('HMGET', key, unpack(fields))
  end
  local values = {}
  for first = 1, count, CHUNK do
    local part = redis.call('HMGET', key, unpack(fields, first, math.min(first + CHUNK - 1, count)))
    for i = 1, #part do
      values[first + i - 1] = part[i]
    end
  end
  return values
end

-- `command` is HSET (pairs) or HDEL, SADD (fields).
local function write(command, key, values, count)
  for first = 1, count, CHUNK do
    redis.call(command, key, unpack(values, first, math.min(first + CHUNK - 1, count)))
  end
end

-- Keeps a sum, as text; what has none has no field.
local function keep_sum(key, name, sum)
  if sum > 0 then
    redis.call('HSET', key, name, string.format('%.0f', sum))
  else
    redis.call('HDEL', key, name)
  end
end

---------------------------------------------------------------- columns of bundles

-- Bytes of a decision key, see bundles.py.
local DECISION = 18
-- Bytes of an attempt's id, of what precedes the codes in its record, and of a commit's name.
local ATTEMPT = 16
local ATTEMPT_HEAD = 18
local COMMIT = 6

-- struct formats by how many times they repeat one item. All sizes of bundles there may be would take 90 MB, which
-- no limit of Redis counts: so many are kept, some 10 MB if they are of large ones.
local MAX_FORMATS = 1000
local formats, formats_kept = {}, 0

local function format(item, count)
  local of_item = formats[item]
  local made = of_item and of_item[count]
  if not made then
    if formats_kept == MAX_FORMATS then
      formats, formats_kept = {}, 0
    end
    formats[item] = formats[item] or {}
    made = '<' .. string.rep(item, count)
    formats[item][count], formats_kept = made, formats_kept + 1
  end
  return made
end

-- The `count` values of a column.
local function split(item, column, count)
  if count <= CHUNK then
    local all = { struct.unpack(format(item, count), column) }
    -- Behind the values unpack tells where it stopped, which is none of them.
    all[count + 1] = nil
    return all
  end
  local values, at = {}, 1
  for first = 1, count, CHUNK do
    local size = math.min(CHUNK, count - first + 1)
    local part = { struct.unpack(format(item, size), column, at) }
    -- The last one is where the next part begins.
    at = part[size + 1]
    for i = 1, size do
      values[first + i - 1] = part[i]
    end
  end
  return values
end

-- Numbers as a column of 8 bytes each.
local function join_numbers(values, count)
  if count <= CHUNK then
    return struct.pack(format('i8', count), unpack(values, 1, count))
  end
  local parts = {}
  for first = 1, count, CHUNK do
    local last = math.min(first + CHUNK - 1, count)
    parts[#parts + 1] = struct.pack(format('i8', last - first + 1), unpack(values, first, last))
  end
  return table.concat(parts)
end

-- Codes as a string: `usual` for all rows but those that `odd` has, one character when there are none of these.
local function join_codes(usual, odd, count)
  if not next(odd) then
    return char(usual)
  end
  local codes, parts = {}, {}
  for i = 1, count do
    codes[i] = odd[i] or usual
  end
  for first = 1, count, CHUNK do
    parts[#parts + 1] = char(unpack(codes, first, math.min(first + CHUNK - 1, count)))
  end
  return table.concat(parts)
end

-- A code a row: what join_codes made, or what a caller gave as one for all.
local function every(codes, count)
  return #codes == count and codes or string.rep(codes, count)
end

local function currencies_of(column, count)
  if #column == 3 then
    return nil, column
  end
  return split('c3', column, count), nil
end

-- How many rows the bundles have whose arguments begin at `starts`, `at` before their decisions.
local function counts_of(args, starts, at)
  local counts = {}
  for m = 1, #starts do
    counts[m] = #args[starts[m] + at] / DECISION
  end
  return counts
end

local function sum_of(counts)
  local sum = 0
  for m = 1, #counts do
    sum = sum + counts[m]
  end
  return sum
end

-- A column of several bundles, as one.
local function join_column(args, starts, at)
  if #starts == 1 then
    return args[starts[1] + at]
  end
  local parts = {}
  for m = 1, #starts do
    parts[m] = args[starts[m] + at]
  end
  return table.concat(parts)
end

-- The same of currencies: a list of them, or nil and the one that all rows have.
local function join_currencies(args, starts, at, counts)
  if #starts == 0 then
    return {}, nil
  end
  local first, same = args[starts[1] + at], true
  for m = 2, #starts do
    same = same and args[starts[m] + at] == first
  end
  if same and #first == 3 then
    return nil, first
  end
  local parts = {}
  for m = 1, #starts do
    local column = args[starts[m] + at]
    parts[m] = #column == 3 and string.rep(column, counts[m]) or column
  end
  return split('c3', table.concat(parts), sum_of(counts)), nil
end

---------------------------------------------------------------- entering and time

-- Refuses a caller with another map of the cluster. Returns what meta has, in the order of HMGET's fields.
local function enter(fence)
  if not byte then
    byte, sub, char = string.byte, string.sub, string.char
  end
  local meta = redis.call('HMGET', 'meta', 'fence', 'horizon', 'window', 'newest', 'big', 'backlog',
    'backlog_limit', 'newest_previous', 'credits', 'clock')
  if meta[1] ~= fence then
    return nil, redis.error_reply('STALE_EPOCH the shard is at ' .. (meta[1] or 'no epoch'))
  end
  return meta
end

-- The same for what begins something new: also refused while too much of the ledger waits to be
-- archived, for history must never be dropped. What is in flight may land.
local function enter_new(fence)
  local meta, refused = enter(fence)
  if meta and meta[7] and tonumber(meta[6] or 0) >= tonumber(meta[7]) then
    return nil, redis.error_reply('LEDGER_FULL ' .. meta[6] .. ' entries wait to be archived')
  end
  return meta, refused
end

-- R8: each protocol call writes something, so that waiting for replicas covers its answer.
local function leave(reply)
  redis.call('HINCRBY', 'meta', 'calls', 1)
  return cmsgpack.pack(reply)
end

-- One entry of the stream for a call; `count` is how many ledger entries it stands for.
local function append(columns, count)
  redis.call('XADD', 'ledger', '*', 'e', cmsgpack.pack(columns))
  redis.call('HINCRBY', 'meta', 'backlog', count)
end

-- The same of a bundle, whose columns are strings: each is a field of its own, for to join them would copy all of
-- them, and Lua reads every byte of a string that it makes.
local function append_bundle(count, kind, codes, decisions, terms, bodies, ...)
  local numbers = { ... }
  if #numbers == 2 then
    redis.call('XADD', 'ledger', '*', 'k', kind, 'c', codes, 'd', decisions, 't', terms, 'b', bodies,
      '1', numbers[1], '2', numbers[2])
  else
    redis.call('XADD', 'ledger', '*', 'k', kind, 'c', codes, 'd', decisions, 't', terms, 'b', bodies,
      '1', numbers[1], '2', numbers[2], '3', numbers[3], '4', numbers[4])
  end
  redis.call('HINCRBY', 'meta', 'backlog', count)
end

local function clock_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Outcomes are dated in ticks of 16 microseconds since 1970: for a hundred years these fit into six bytes, and
-- each commit can have one of its own.
local function ticks(now_ms)
  return math.floor(now_ms * 62.5)
end

-- Ids older than this and not remembered can no longer be told from repetitions: the window has
-- passed, or a forgotten generation held ids as young as this.
local function cutoff_ms(meta, now_ms)
  return math.max(tonumber(meta[2] or 0), now_ms - meta[3])
end

local function expired(id, cutoff)
  local version = byte(id, 7)
  return version >= 0x70 and version < 0x80 and struct.unpack('>I6', id) < cutoff
end

