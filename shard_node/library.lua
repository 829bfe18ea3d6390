#!lua name=tallystick
-- All that a shard does atomically: accounts, one-shard transfers and the shard's half of
-- two-phase commit. Each function answers a whole batch.
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
local PREPARED = 32
local APPLIED = 33
local FINISHED = 34
local DROPPED = 35
local SETTLED = 36
local MISSING_LEG = 37
-- Added to a refusal that concerns the payee's account.
local PAYEE = 64

local FROZEN = 1
local CLOSED = 2

local ACCOUNT = '<i8i8i8i8Bc3'

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

---------------------------------------------------------------- entering and time

-- Refuses a caller with another map of the cluster. Returns meta's horizon, window, newest, big.
local function enter(fence)
  if not byte then
    byte, sub, char = string.byte, string.sub, string.char
  end
  local meta = redis.call('HMGET', 'meta', 'fence', 'horizon', 'window', 'newest', 'big')
  if meta[1] ~= fence then
    return nil, redis.error_reply('STALE_EPOCH the shard is at ' .. (meta[1] or 'no epoch'))
  end
  return meta
end

-- R8: each protocol call writes something, so that waiting for replicas covers its answer.
local function leave(reply)
  redis.call('HINCRBY', 'meta', 'calls', 1)
  return cmsgpack.pack(reply)
end

local function clock_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
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

---------------------------------------------------------------- accounts

-- The accounts named in one or two columns, unpacked into columns of their own.
local function open_book(first, second)
  local index, names, count = {}, {}, 0
  for i = 1, #first do
    local name = first[i]
    if not index[name] then
      count = count + 1
      index[name] = count
      names[count] = name
    end
  end
  if second then
    for i = 1, #second do
      local name = second[i]
      if not index[name] then
        count = count + 1
        index[name] = count
        names[count] = name
      end
    end
  end
  local records = hmget('accounts', names)
  local available, held, version, floor, state, currency = {}, {}, {}, {}, {}, {}
  for k = 1, count do
    local record = records[k]
    if record then
      available[k], held[k], version[k], floor[k], state[k], currency[k] = struct.unpack(ACCOUNT, record)
    elseif byte(names[k]) == 64 then
      -- A system account (@world:EUR) begins with its first use.
      available[k], held[k], version[k], floor[k], state[k] = 0, 0, 0, -MAX_MINOR, 0
      currency[k] = sub(names[k], -3)
    end
  end
  return {
    index = index, names = names, count = count, dirty = {},
    available = available, held = held, version = version,
    floor = floor, state = state, currency = currency,
  }
end

local function close_book(book)
  local available, held, version = book.available, book.held, book.version
  local floor, state, currency = book.floor, book.state, book.currency
  local names, dirty = book.names, book.dirty
  local flat, n = {}, 0
  for k = 1, book.count do
    if dirty[k] then
      flat[n + 1] = names[k]
      flat[n + 2] = struct.pack(ACCOUNT, available[k], held[k], version[k], floor[k], state[k], currency[k])
      n = n + 2
    end
  end
  write('HSET', 'accounts', flat, n)
end

-- What is prepared on the shard and still has to come, so that a finish need never refuse it. `bound` is
-- more than any account can have coming, unless a big credit is prepared: then it says to look closely.
local function open_incoming(meta)
  local big = tonumber(meta[5] or 0)
  local bound = big > 0 and MAX_MINOR or redis.call('HLEN', 'prepared') * BIG
  return { big = big, bound = bound, payees = {}, amounts = {}, count = 0 }
end

local function add_incoming(incoming, payee, amount)
  local n = incoming.count + 1
  incoming.count, incoming.payees[n], incoming.amounts[n] = n, payee, amount
  if amount > BIG then
    incoming.big = incoming.big + 1
    incoming.bound = MAX_MINOR
  else
    incoming.bound = incoming.bound + BIG
  end
  if incoming.exact then
    incoming.exact[payee] = (incoming.exact[payee] or 0) + amount
  end
end

-- <time 6><amount 8><currency 3><payer slot 2><payee slot 2><kind 1><payer length 1><payee length 1>
local function leg_payee(leg)
  local payer_length, payee_length = byte(leg, 23, 24)
  return sub(leg, 25 + payer_length, 24 + payer_length + payee_length)
end

local function leg_amount(leg)
  return struct.unpack('<i8', leg, 7)
end

-- Exactly what one account has coming: adds up all that is prepared, once a call and rarely at all.
local function incoming_to(incoming, payee)
  if not incoming.exact then
    local exact = {}
    local legs = redis.call('HVALS', 'prepared')
    for i = 1, #legs do
      local name = leg_payee(legs[i])
      exact[name] = (exact[name] or 0) + leg_amount(legs[i])
    end
    for i = 1, incoming.count do
      local name = incoming.payees[i]
      exact[name] = (exact[name] or 0) + incoming.amounts[i]
    end
    incoming.exact = exact
  end
  return incoming.exact[payee] or 0
end

-- Why account k cannot take `amount`, or nil.
local function credit_refusal(book, k, amount, currency, incoming)
  local available = book.available[k]
  if not available then
    return ACCOUNT_NOT_FOUND + PAYEE
  end
  local state = book.state[k]
  if state ~= 0 then
    return (state == FROZEN and ACCOUNT_FROZEN or ACCOUNT_CLOSED) + PAYEE
  end
  if book.currency[k] ~= currency then
    return CURRENCY_MISMATCH + PAYEE
  end
  local balance = available + book.held[k] + amount
  if math.max(balance, amount) + incoming.bound > MAX_MINOR then
    local coming = incoming_to(incoming, book.names[k])
    -- The first limit keeps the sum itself exact, also for an account far below zero.
    if coming + amount > MAX_MINOR or balance + coming > MAX_MINOR then
      return BALANCE_LIMIT + PAYEE
    end
  end
end

local function debit_refusal(book, k, amount, currency)
  local available = book.available[k]
  if not available then
    return ACCOUNT_NOT_FOUND
  end
  local state = book.state[k]
  if state ~= 0 then
    return state == FROZEN and ACCOUNT_FROZEN or ACCOUNT_CLOSED
  end
  if book.currency[k] ~= currency then
    return CURRENCY_MISMATCH
  end
  local floor = book.floor[k]
  if available - amount < floor then
    return floor == -MAX_MINOR and BALANCE_LIMIT or INSUFFICIENT_FUNDS
  end
end

---------------------------------------------------------------- remembered outcomes

-- Packed outcomes are <outcome B><time I6><terms>: the same terms means the same payload.
local function prefixes(now_ms)
  local stamp = struct.pack('<I6', now_ms)
  local made = {}
  return function(code)
    local prefix = made[code]
    if not prefix then
      prefix = char(code) .. stamp
      made[code] = prefix
    end
    return prefix
  end, stamp
end

-- The outcome of an earlier call, as the deciding shard tells it (R3): COMMITTED while the transfer
-- is unsettled, SETTLED after, or when one call on one shard committed it.
local function recall(prior, terms, key)
  if sub(prior, 8) ~= terms then
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
    end
  end
end

---------------------------------------------------------------- the functions

-- Binds this Redis to a shard and raises its epoch. args: cluster/shard, epoch, window in ms.
local function setup(_, args)
  local meta = redis.call('HMGET', 'meta', 'shard', 'epoch')
  if meta[1] and meta[1] ~= args[1] then
    return redis.error_reply('WRONG_SHARD this Redis holds ' .. meta[1])
  end
  if meta[2] and tonumber(meta[2]) > tonumber(args[2]) then
    return redis.error_reply('STALE_EPOCH the shard is at epoch ' .. meta[2])
  end
  redis.call('HSET', 'meta', 'shard', args[1], 'epoch', args[2], 'fence', args[1] .. '/' .. args[2],
    'window', args[3])
  return redis.status_reply('OK')
end

-- Opens accounts. columns: names, slots, currencies, floors -> {codes, records}
local function open(_, args)
  local _, stale = enter(args[1])
  if stale then
    return stale
  end
  local names, slots, currencies, floors = unpack(cmsgpack.unpack(args[2]))
  local existing, fresh = hmget('accounts', names), {}
  local codes, records, flat, n = {}, {}, {}, 0
  local members, made = {}, { {}, {}, {} }
  for i = 1, #names do
    local record = existing[i] or fresh[names[i]]
    codes[i] = COMMITTED
    if record then
      local _, _, _, floor, _, currency = struct.unpack(ACCOUNT, record)
      if floor ~= floors[i] or currency ~= currencies[i] then
        codes[i] = ACCOUNT_EXISTS
      end
    else
      record = struct.pack(ACCOUNT, 0, 0, 0, floors[i], 0, currencies[i])
      fresh[names[i]] = record
      flat[n + 1], flat[n + 2] = names[i], record
      n = n + 2
      local slot = slots[i]
      members[slot] = members[slot] or {}
      table.insert(members[slot], names[i])
      table.insert(made[1], names[i])
      table.insert(made[2], currencies[i])
      table.insert(made[3], floors[i])
    end
    records[i] = record
  end
  if n > 0 then
    write('HSET', 'accounts', flat, n)
    for slot, ids in pairs(members) do
      write('SADD', 'slot:' .. slot, ids, #ids)
    end
    redis.call('XADD', 'ledger', '*', 'e', cmsgpack.pack({ 'open', clock_ms(), made[1], made[2], made[3] }))
  end
  return leave({ codes, records })
end

-- Reads accounts; writes nothing. columns: names -> a list of records
local function accounts(_, args)
  local _, stale = enter(args[1])
  if stale then
    return stale
  end
  return hmget('accounts', cmsgpack.unpack(args[2])[1])
end

-- Reads one remembered outcome; writes nothing. args[2]: the decision key -> packed outcome or nil
local function outcome(_, args)
  local _, stale = enter(args[1])
  if stale then
    return stale
  end
  return redis.call('HGET', 'done:current', args[2]) or redis.call('HGET', 'done:previous', args[2])
end

-- Transfers between accounts of this shard.
-- columns: decisions, keys, terms, payers, payees, amounts, currencies, bodies
-- -> {codes, payer balances, payee balances}
local function post(_, args)
  local meta, stale = enter(args[1])
  if stale then
    return stale
  end
  local oldest, newest = tonumber(args[2]), tonumber(args[3])
  local decisions, keys, terms, payers, payees, amounts, currencies, bodies = unpack(cmsgpack.unpack(args[4]))
  local now = clock_ms()
  local cutoff, incoming = cutoff_ms(meta, now), open_incoming(meta)
  local prefix = prefixes(now)
  local current, previous = hmget('done:current', decisions), hmget('done:previous', decisions)
  local book = open_book(payers, payees)
  local index, available, version, dirty = book.index, book.available, book.version, book.dirty
  local fresh, done, n = {}, {}, 0
  local codes, payer_balances, payee_balances = {}, {}, {}
  local l_ids, l_bodies, l_pb, l_pv, l_rb, l_rv, l = {}, {}, {}, {}, {}, {}, 0
  local any_expired = false
  for i = 1, #decisions do
    local id, term = decisions[i], terms[i]
    local code
    payer_balances[i], payee_balances[i] = NO_BALANCE, NO_BALANCE
    if fresh[id] then
      code = sub(fresh[id], 8) == term and byte(fresh[id]) or TRANSACTION_ID_REUSED
    elseif current[i] or previous[i] then
      code = recall(current[i] or previous[i], term, keys[i])
      if code == SETTLED then
        code = COMMITTED
      elseif code == COMMITTED then
        -- Committed across shards before a resize brought the two together: still on its way.
        code = OUTCOME_UNKNOWN
      end
    elseif oldest < cutoff and expired(id, cutoff) then
      code = TRANSACTION_ID_EXPIRED
      any_expired = true
    else
      local amount, currency = amounts[i], currencies[i]
      local payer, payee = index[payers[i]], index[payees[i]]
      code = credit_refusal(book, payee, amount, currency, incoming)
        or debit_refusal(book, payer, amount, currency)
      if not code then
        code = COMMITTED
        available[payer] = available[payer] - amount
        version[payer] = version[payer] + 1
        dirty[payer] = true
        available[payee] = available[payee] + amount
        version[payee] = version[payee] + 1
        dirty[payee] = true
        payer_balances[i], payee_balances[i] = available[payer], available[payee]
        l = l + 1
        l_ids[l], l_bodies[l] = id, bodies[i]
        l_pb[l], l_pv[l], l_rb[l], l_rv[l] = available[payer], version[payer], available[payee], version[payee]
      end
      local record = prefix(code) .. term
      fresh[id] = record
      done[n + 1], done[n + 2] = id, record
      n = n + 2
    end
    codes[i] = code
  end
  remember(meta, done, n, newest, any_expired and cutoff)
  if l > 0 then
    close_book(book)
    redis.call('XADD', 'ledger', '*', 'e',
      cmsgpack.pack({ 'post', now, l_ids, l_bodies, l_pb, l_pv, l_rb, l_rv }))
  end
  return leave({ codes, payer_balances, payee_balances })
end

-- Step 1, on the payee's shard: checks the credit and keeps it, not spendable.
-- columns: keys, payees, amounts, currencies, bodies -> {codes}
local function prepare(_, args)
  local meta, stale = enter(args[1])
  if stale then
    return stale
  end
  local keys, payees, amounts, currencies, bodies = unpack(cmsgpack.unpack(args[2]))
  local applied, applied_before = hmget('done:current', keys), hmget('done:previous', keys)
  local waiting = hmget('prepared', keys)
  local book = open_book(payees)
  local index = book.index
  local incoming = open_incoming(meta)
  local big = incoming.big
  local stamp = struct.pack('<I6', clock_ms())
  local fresh, flat, n, codes = {}, {}, 0, {}
  for i = 1, #keys do
    local key = keys[i]
    local code
    if applied[i] or applied_before[i] then
      -- R4: this leg was applied; a late duplicate must not prepare it again.
      code = APPLIED
    elseif waiting[i] or fresh[key] then
      code = PREPARED
    else
      code = credit_refusal(book, index[payees[i]], amounts[i], currencies[i], incoming)
      if not code then
        code = PREPARED
        add_incoming(incoming, payees[i], amounts[i])
        fresh[key] = true
        flat[n + 1], flat[n + 2] = key, stamp .. bodies[i]
        n = n + 2
      end
    end
    codes[i] = code
  end
  if n > 0 then
    write('HSET', 'prepared', flat, n)
    if incoming.big > big then
      redis.call('HINCRBY', 'meta', 'big', incoming.big - big)
    end
  end
  return leave({ codes })
end

-- Step 2, on the payer's shard: the commit point. verdicts: 0 to commit, or the payee's refusal to
-- record. Step 5 rides along: `settled` are keys of transfers finished everywhere.
-- columns: decisions, keys, terms, payers, amounts, currencies, bodies, verdicts, settled
-- -> {codes, payer balances}
local function decide(_, args)
  local meta, stale = enter(args[1])
  if stale then
    return stale
  end
  local oldest, newest = tonumber(args[2]), tonumber(args[3])
  local decisions, keys, terms, payers, amounts, currencies, bodies, verdicts, settled =
    unpack(cmsgpack.unpack(args[4]))
  local now = clock_ms()
  local cutoff = cutoff_ms(meta, now)
  local prefix, stamp = prefixes(now)
  local current, previous = hmget('done:current', decisions), hmget('done:previous', decisions)
  local book = open_book(payers)
  local index, available, version, dirty = book.index, book.available, book.version, book.dirty
  local fresh, done, n = {}, {}, 0
  local unsettled, u = {}, 0
  local codes, balances = {}, {}
  local l_ids, l_bodies, l_balances, l_versions, l = {}, {}, {}, {}, 0
  local any_expired = false
  for i = 1, #decisions do
    local id, term = decisions[i], terms[i]
    local code
    balances[i] = NO_BALANCE
    if fresh[id] then
      local prior = fresh[id]
      code = sub(prior, 8) == term and byte(prior) or TRANSACTION_ID_REUSED
    elseif current[i] or previous[i] then
      code = recall(current[i] or previous[i], term, keys[i])
    elseif oldest < cutoff and expired(id, cutoff) then
      code = TRANSACTION_ID_EXPIRED
      any_expired = true
    else
      code = verdicts[i]
      if code == 0 then
        local payer, amount = index[payers[i]], amounts[i]
        code = debit_refusal(book, payer, amount, currencies[i])
        if not code then
          code = COMMITTED
          local balance = available[payer] - amount
          available[payer] = balance
          version[payer] = version[payer] + 1
          dirty[payer] = true
          balances[i] = balance
          unsettled[u + 1], unsettled[u + 2] = keys[i], stamp .. bodies[i]
          u = u + 2
          l = l + 1
          l_ids[l], l_bodies[l], l_balances[l], l_versions[l] = id, bodies[i], balance, version[payer]
        end
      end
      local record = prefix(code) .. term
      fresh[id] = record
      done[n + 1], done[n + 2] = id, record
      n = n + 2
    end
    codes[i] = code
  end
  remember(meta, done, n, newest, any_expired and cutoff)
  if l > 0 then
    close_book(book)
    write('HSET', 'unsettled', unsettled, u)
    redis.call('XADD', 'ledger', '*', 'e',
      cmsgpack.pack({ 'decide', now, l_ids, l_bodies, l_balances, l_versions }))
  end
  write('HDEL', 'unsettled', settled, #settled)
  return leave({ codes, balances })
end

-- Steps 3 and 4, on the payee's shard. verdicts: COMMITTED applies the leg, all else drops it.
-- columns: keys, verdicts -> {codes, payee balances}
local function finish(_, args)
  local _, stale = enter(args[1])
  if stale then
    return stale
  end
  local keys, verdicts = unpack(cmsgpack.unpack(args[2]))
  local legs = hmget('prepared', keys)
  local payees, taken = {}, 0
  for i = 1, #keys do
    local leg = legs[i]
    if leg and verdicts[i] == COMMITTED then
      taken = taken + 1
      payees[taken] = leg_payee(leg)
    end
  end
  local book = open_book(payees)
  local index, available, version, dirty = book.index, book.available, book.version, book.dirty
  local big = 0
  local fresh, done, n, gone, g = {}, {}, 0, {}, 0
  local codes, balances, alarms = {}, {}, 0
  local l_ids, l_bodies, l_balances, l_versions, l = {}, {}, {}, {}, 0
  taken = 0
  for i = 1, #keys do
    local key, leg = keys[i], legs[i]
    local apply = verdicts[i] == COMMITTED
    local payee
    if leg and apply then
      taken = taken + 1
      payee = index[payees[taken]]
    end
    local code = apply and FINISHED or DROPPED
    balances[i] = NO_BALANCE
    if leg and not fresh[key] then
      fresh[key] = true
      g = g + 1
      gone[g] = key
      local amount = leg_amount(leg)
      if amount > BIG then
        big = big + 1
      end
      if apply then
        local balance = available[payee] + amount
        available[payee] = balance
        version[payee] = version[payee] + 1
        dirty[payee] = true
        balances[i] = balance
        done[n + 1], done[n + 2] = key, sub(leg, 20, 21)
        n = n + 2
        l = l + 1
        l_ids[l], l_bodies[l], l_balances[l], l_versions[l] = key, sub(leg, 7), balance, version[payee]
      end
    elseif apply and not fresh[key]
      and not redis.call('HGET', 'done:current', key) and not redis.call('HGET', 'done:previous', key) then
      -- R5: committed, yet neither prepared nor applied. Never answered with ok.
      code = MISSING_LEG
      alarms = alarms + 1
    end
    codes[i] = code
  end
  if alarms > 0 then
    redis.call('HINCRBY', 'meta', 'alarms', alarms)
  end
  if g > 0 then
    write('HDEL', 'prepared', gone, g)
    if big > 0 then
      redis.call('HINCRBY', 'meta', 'big', -big)
    end
  end
  if l > 0 then
    close_book(book)
    write('HSET', 'done:current', done, n)
    redis.call('XADD', 'ledger', '*', 'e',
      cmsgpack.pack({ 'finish', clock_ms(), l_ids, l_bodies, l_balances, l_versions }))
  end
  return leave({ codes, balances })
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

-- Forgets the older generation of outcomes. Outcomes of unsettled transfers are carried over, so a
-- commit stays known until it is finished everywhere. -> number of outcomes carried
local function rotate(_, args)
  local meta, stale = enter(args[1])
  if stale then
    return stale
  end
  local more = redis.call('HMGET', 'meta', 'newest_previous')
  local entries = redis.call('HGETALL', 'unsettled')
  local decisions = {}
  for i = 1, #entries, 2 do
    -- Transaction id from the key, payer slot from the packed terms.
    decisions[#decisions + 1] = sub(entries[i], 1, 16) .. sub(entries[i + 1], 18, 19)
  end
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
  if redis.call('EXISTS', 'done:current') == 1 then
    redis.call('RENAME', 'done:current', 'done:previous')
  else
    redis.call('DEL', 'done:previous')
  end
  write('HSET', 'done:current', flat, n)
  redis.call('HSET', 'meta', 'horizon', string.format('%.0f', horizon),
    'newest_previous', meta[4] or '0', 'newest', '0', 'rotated', string.format('%.0f', clock_ms()))
  redis.call('HINCRBY', 'meta', 'calls', 1)
  return n / 2
end

-- A full shard must be able to start.
redis.register_function{ function_name = 'setup', callback = setup, flags = { 'allow-oom' } }
redis.register_function('open', open)
redis.register_function{ function_name = 'accounts', callback = accounts, flags = { 'no-writes' } }
redis.register_function{ function_name = 'outcome', callback = outcome, flags = { 'no-writes' } }
redis.register_function('post', post)
redis.register_function('prepare', prepare)
redis.register_function('decide', decide)
-- What is in flight may always land, also when memory is full.
redis.register_function{ function_name = 'finish', callback = finish, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'settle', callback = settle, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'resolve', callback = resolve, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'rotate', callback = rotate, flags = { 'allow-oom' } }
