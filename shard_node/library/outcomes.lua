---------------------------------------------------------------- remembered outcomes

-- Packed outcomes are <outcome B><ticks I6><terms>, a journal's with the leg that was refused after them:
-- the same terms means the same payload. Also the time in ms, as prepared and unsettled legs have it.
local function prefixes(now_ms)
  local stamp = struct.pack('<I6', ticks(now_ms))
  local made = {}
  return function(code)
    local prefix = made[code]
    if not prefix then
      prefix = char(code) .. stamp
      made[code] = prefix
    end
    return prefix
  end, struct.pack('<I6', now_ms)
end

-- The outcome of an earlier call about a journal, as the deciding shard tells it (R3): COMMITTED while it
-- is unsettled, SETTLED after, or when one call on one shard committed it.
local function recall(prior, terms, key)
  if sub(prior, 8, 7 + #terms) ~= terms then
    return TRANSACTION_ID_REUSED
  end
  local code = byte(prior)
  if code == COMMITTED and redis.call('HEXISTS', 'unsettled', key) == 0 then
    return SETTLED
  end
  return code
end

-- Writes what a call decided: outcomes and the youngest id among them. What it answered as expired, by
-- `expired_cutoff`, stays so, whatever clocks and settings do later: callers act on it.
local function remember(meta, done, n, newest, expired_cutoff)
  if expired_cutoff then
    redis.call('HSET', 'meta', 'horizon', string.format('%.0f', expired_cutoff))
  end
  if n > 0 then
    write('HSET', 'done:current', done, n)
    if newest > tonumber(meta[4] or 0) then
      redis.call('HSET', 'meta', 'newest', string.format('%.0f', newest))
      meta[4] = newest
    end
  end
end

-- Reads one remembered outcome; writes nothing. args[2]: the decision key -> packed outcome or nil
local function outcome(_, args)
  local _, stale = enter(args[1])
  if stale then
    return stale
  end
  return redis.call('HGET', 'done:current', args[2]) or redis.call('HGET', 'done:previous', args[2])
end

-- Step 5 by itself, when no decide is there to carry it. columns: keys -> {}
local function settle(_, args)
  local _, stale = enter(args[1])
  if stale then
    return stale
  end
  local keys = cmsgpack.unpack(args[2])[1]
  write('HDEL', 'unsettled', keys, #keys)
  return leave({})
end

-- What became of transfers whose legs are left on another shard. One with no outcome gets ABORTED as
-- its outcome, so that a late decide is refused. columns: decisions, keys, terms -> {codes}
local function resolve(_, args)
  local meta, stale = enter(args[1])
  if stale then
    return stale
  end
  local oldest, newest = tonumber(args[2]), tonumber(args[3])
  local decisions, keys, terms = unpack(cmsgpack.unpack(args[4]))
  local now = clock_ms()
  local cutoff = cutoff_ms(meta, now)
  local prefix = prefixes(now)
  local current, previous = hmget('done:current', decisions), hmget('done:previous', decisions)
  local fresh, done, n, codes = {}, {}, 0, {}
  local any_expired = false
  for i = 1, #decisions do
    local id = decisions[i]
    local prior = current[i] or previous[i] or fresh[id]
    if prior then
      codes[i] = recall(prior, terms[i], keys[i])
    elseif oldest < cutoff and expired(id, cutoff) then
      codes[i] = TRANSACTION_ID_EXPIRED
      any_expired = true
    else
      local record = prefix(ABORTED) .. terms[i]
      fresh[id] = record
      done[n + 1], done[n + 2] = id, record
      n = n + 2
      codes[i] = ABORTED
    end
  end
  remember(meta, done, n, newest, any_expired and cutoff)
  return leave({ codes })
end

-- R4: which of some attempts have ended here, by their place.
local function which_ended(attempts)
  if #attempts == 0 then
    return {}
  end
  local found = {}
  for first = 1, #attempts, CHUNK do
    local last = math.min(first + CHUNK - 1, #attempts)
    local ended = redis.call('SMISMEMBER', 'ended:current', unpack(attempts, first, last))
    local before = redis.call('SMISMEMBER', 'ended:previous', unpack(attempts, first, last))
    for i = first, last do
      found[i] = ended[i - first + 1] == 1 or before[i - first + 1] == 1
    end
  end
  return found
end

-- Whether what a rotation drops is stored for good: it was decided before the last rotation.
local function is_archived(rotated_ms, archived_id)
  return tonumber(string.match(archived_id or '0-0', '^%d+')) >= rotated_ms
end

-- The younger generation becomes the older one, which is forgotten.
local function age(younger, older)
  if redis.call('EXISTS', younger) == 1 then
    redis.call('RENAME', younger, older)
  else
    redis.call('DEL', older)
  end
end

-- Adds the transfers that a commit committed to `found`, as keys.
local function add_committed(found, commit)
  local count = #commit[4] / DECISION
  local codes, column = every(commit[3], count), split('c18', commit[4], count)
  for row = 1, count do
    if byte(codes, row) == COMMITTED then
      found[column[row]] = true
    end
  end
  return found
end

-- The commit under a name: {attempt id, payees' shard, codes, decisions}, or nil.
local function read_commit(name)
  local packed, decisions = unpack(redis.call('HMGET', 'commits', name, name .. 'd'))
  local commit = packed and cmsgpack.unpack(packed) or nil
  if commit then
    commit[4] = decisions
  end
  return commit
end

-- Names of the outcomes of all that is unsettled.
local function unsettled_decisions()
  local found, decisions = {}, {}
  local entries = redis.call('HGETALL', 'unsettled')
  for i = 1, #entries, 2 do
    -- Transaction id from the key, deciding slot from the packed journal.
    found[sub(entries[i], 1, 16) .. sub(entries[i + 1], 18, 19)] = true
  end
  local fields = redis.call('HKEYS', 'commits')
  for i = 1, #fields do
    if #fields[i] == COMMIT then
      add_committed(found, read_commit(fields[i]))
    end
  end
  for decision in pairs(found) do
    decisions[#decisions + 1] = decision
  end
  return decisions
end

-- Forgets the older generation of outcomes. Outcomes of unsettled transfers are carried over, so a
-- commit stays known until it is finished everywhere.
-- Not within args[2] ms of the last time: a rotation whose answer was lost is tried again, and two in a row
-- would forget what is seconds old. Nor, when args[3] is '1', before the archive has what is dropped.
-- -> number of outcomes carried, or -1 when it is too early
local function rotate(_, args)
  local meta, stale = enter(args[1])
  if stale then
    return stale
  end
  local more = redis.call('HMGET', 'meta', 'newest_previous', 'rotated', 'archived_id')
  local rotated = tonumber(more[2] or 0)
  if clock_ms() - rotated < tonumber(args[2]) then
    return -1
  elseif args[3] == '1' and tonumber(meta[6] or 0) > 0 and not is_archived(rotated, more[3]) then
    return -1
  end
  local decisions = unsettled_decisions()
  local current, previous = hmget('done:current', decisions), hmget('done:previous', decisions)
  local flat, n = {}, 0
  for i = 1, #decisions do
    local record = current[i] or previous[i]
    if record then
      flat[n + 1], flat[n + 2] = decisions[i], record
      n = n + 2
    end
  end
  -- No clock decides this: every id so young as the youngest forgotten one counts as expired.
  local horizon = math.max(tonumber(meta[2] or 0), tonumber(more[1] or 0) + 1)
  age('done:current', 'done:previous')
  age('ended:current', 'ended:previous')
  write('HSET', 'done:current', flat, n)
  redis.call('HSET', 'meta', 'horizon', string.format('%.0f', horizon),
    -- What is carried over is no younger than what was there.
    'newest_previous', meta[4] or '0', 'newest', n > 0 and meta[4] or '0', 'rotated', string.format('%.0f', clock_ms()))
  redis.call('HINCRBY', 'meta', 'calls', 1)
  return n / 2
end

