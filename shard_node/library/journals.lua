---------------------------------------------------------------- journals
-- Transactions of any number of legs, each with an effect on one account; some have a condition that
-- is kept here: a hold, or what was refunded of a purchase. Both are named by <id 16><slot 2>.

local CREDIT = 1
local REFUND = 3
local CAPTURE = 4
local HOLD = 5
local VOID = 6

-- The ledger's kind of a hold that ended by its time; where a body has its kind.
local EXPIRY = '\10'
local KIND_AT = 16

-- <expires ms i8><amount i8><journal key 24><leg body>
local HOLD_HEAD = '<i8i8'

-- Holds and refunded sums that a call reads and changes, written at its end.
local function open_conditions(now)
  return { now = now, holds = {}, refunds = {}, touched_holds = {}, touched_refunds = {} }
end

local function hold_of(conditions, name)
  local hold = conditions.holds[name]
  if hold == nil then
    local record = redis.call('HGET', 'holds', name)
    if record then
      local expires, amount = struct.unpack(HOLD_HEAD, record)
      hold = { expires = expires, amount = amount, account = leg_payee(sub(record, 35)) }
    end
    conditions.holds[name] = hold or false
  end
  return hold or nil
end

local function set_hold(conditions, name, hold)
  conditions.holds[name] = hold
  conditions.touched_holds[name] = true
end

local function refunded(conditions, name)
  local sum = conditions.refunds[name]
  if not sum then
    sum = tonumber(redis.call('HGET', 'refunds', name) or 0)
    conditions.refunds[name] = sum
  end
  return sum
end

local function set_refunded(conditions, name, sum)
  conditions.refunds[name] = sum
  conditions.touched_refunds[name] = true
end

local function close_conditions(conditions)
  for name in pairs(conditions.touched_holds) do
    local hold = conditions.holds[name]
    if hold then
      redis.call('HSET', 'holds', name, struct.pack(HOLD_HEAD, hold.expires, hold.amount) .. hold.key .. hold.body)
      redis.call('ZADD', 'holds:due', string.format('%.0f', hold.expires), name)
    else
      redis.call('HDEL', 'holds', name)
      redis.call('ZREM', 'holds:due', name)
    end
  end
  for name in pairs(conditions.touched_refunds) do
    keep_sum('refunds', name, conditions.refunds[name])
  end
end

-- A hold that can still be captured or voided from account `name`.
local function active_hold(conditions, related, name)
  local hold = hold_of(conditions, related)
  if hold and hold.account == name and hold.expires > conditions.now then
    return hold
  end
end

-- Why a leg cannot be carried out, or nil. `legs` are columns: accounts, effects, amounts, currencies,
-- related names, bounds, bodies.
local function leg_refusal(book, legs, j, conditions, incoming)
  local name, effect, amount, currency = legs[1][j], legs[2][j], legs[3][j], legs[4][j]
  local k = book.index[name]
  if effect == CREDIT then
    return credit_refusal(book, k, amount, currency, incoming)
  elseif effect == REFUND then
    local code = credit_refusal(book, k, amount, currency, incoming)
    if not code and refunded(conditions, legs[5][j]) + amount > legs[6][j] then
      code = REFUND_EXCEEDS_PURCHASE
    end
    return code
  elseif effect == HOLD and hold_of(conditions, legs[5][j]) then
    -- A hold may outlive the memory of its id: a second one under that name would lose what the first holds.
    return TRANSACTION_ID_EXPIRED
  elseif effect ~= CAPTURE and effect ~= VOID then
    local code = debit_refusal(book, k, amount, currency)
    if not code and book.held[k] + amount > MAX_MINOR then
      -- It may be held, before it leaves or for a time.
      code = BALANCE_LIMIT
    end
    return code
  end
  if not book.available[k] then
    return ACCOUNT_NOT_FOUND
  end
  -- What a frozen account has reserved may be set free, not spent.
  local code = effect == CAPTURE and blocked(book.state[k])
  if code then
    return code
  end
  local hold = active_hold(conditions, legs[5][j], name)
  if not hold then
    return HOLD_NOT_ACTIVE
  elseif effect == CAPTURE and book.currency[k] ~= currency then
    return CURRENCY_MISMATCH
  elseif effect == CAPTURE and amount > hold.amount then
    return CAPTURE_EXCEEDS_HOLD
  end
end

-- Carries a leg out that was not refused; the change of its balance and of what is held.
local function apply_leg(book, legs, j, conditions, key)
  local effect, amount, related = legs[2][j], legs[3][j], legs[5][j]
  local k = book.index[legs[1][j]]
  local available, held = book.available, book.held
  local delta, held_delta = 0, 0
  if effect == CREDIT or effect == REFUND then
    delta = amount
    if effect == REFUND then
      set_refunded(conditions, related, refunded(conditions, related) + amount)
    end
  elseif effect == HOLD then
    held_delta = amount
    set_hold(conditions, related, {
      expires = conditions.now + legs[6][j], amount = amount, key = key, body = legs[7][j],
      account = legs[1][j],
    })
  elseif effect == CAPTURE or effect == VOID then
    delta, held_delta = -amount, -hold_of(conditions, related).amount
    set_hold(conditions, related, false)
  else
    delta = -amount
  end
  -- Neither difference alone need stay within 2^53.
  available[k] = available[k] + (delta - held_delta)
  held[k] = held[k] + held_delta
  book.version[k] = book.version[k] + 1
  book.dirty[k] = true
  return delta, held_delta
end

-- What a call adds to the ledger, leg by leg.
local function open_entries()
  return { 'legs', {}, {}, {}, {}, {}, {}, count = 0 }
end

local function add_entry(entries, key, body, delta, held_delta, book, k)
  local n = entries.count + 1
  entries.count = n
  entries[2][n], entries[3][n], entries[4][n], entries[5][n] = key, body, delta, held_delta
  entries[6][n], entries[7][n] = book.available[k] + book.held[k], book.version[k]
end

local function close_entries(entries)
  if entries.count > 0 then
    append({ unpack(entries, 1, 7) }, entries.count)
  end
end

local function leg_key(key, number)
  return key .. struct.pack('<I2', number)
end

-- An outcome that is there already, as a journal's caller gets it: the code, and the leg it concerns.
-- What lies behind another payload's terms, a purchase's kind perhaps, is no leg of this journal.
local function recall_journal(prior, terms, key)
  local code = recall(prior, terms, key)
  return code, code ~= TRANSACTION_ID_REUSED and byte(prior, 8 + #terms) or 0
end

-- Whether one of a journal's participating legs is prepared here.
local function left_prepared(key, legs)
  for number = 1, legs do
    if redis.call('HEXISTS', 'prepared', leg_key(key, number)) == 1 then
      return true
    end
  end
end

-- Carries out one journal's legs, first to last, all or none: the leg that was refused and why, or nil.
local function post_legs(book, legs, first, last, key, conditions, incoming, entries)
  -- The deciding leg comes last, as across shards: the refusal is the same wherever the accounts are. No
  -- account is in two legs, so no leg depends on another.
  for n = 1, last - first + 1 do
    local j = n <= last - first and first + n or first
    local code = leg_refusal(book, legs, j, conditions, incoming)
    if code and left_prepared(key, last - first) then
      -- By an earlier try, when the accounts were on several shards: what is in the way may be its own.
      code = OUTCOME_UNKNOWN
    end
    if code then
      return j - first, code
    end
  end
  for j = first, last do
    local delta, held_delta = apply_leg(book, legs, j, conditions, key)
    add_entry(entries, leg_key(key, j - first), legs[7][j], delta, held_delta, book, book.index[legs[1][j]])
  end
end

-- Journals whose legs are all on this shard.
-- columns: decisions, keys, terms, numbers of legs, then the legs' columns, see leg_refusal
-- -> {codes, refused legs, available balances leg by leg}
local function post_journals(_, args)
  local meta, refused = enter_new(args[1])
  if refused then
    return refused
  end
  local oldest, newest = tonumber(args[2]), tonumber(args[3])
  local columns = cmsgpack.unpack(args[4])
  local decisions, keys, terms, counts = unpack(columns)
  local legs = { unpack(columns, 5) }
  local now = clock_ms()
  local cutoff, incoming, conditions = cutoff_ms(meta, now), open_incoming(meta), open_conditions(now)
  local prefix = prefixes(now)
  local current, previous = hmget('done:current', decisions), hmget('done:previous', decisions)
  local book, entries = open_book(legs[1]), open_entries()
  local fresh, done, n, any_expired = {}, {}, 0, false
  local codes, refused_legs, balances = {}, {}, {}
  local first = 1
  for i = 1, #decisions do
    local id, term, last = decisions[i], terms[i], first + counts[i] - 1
    local code, leg
    for j = first, last do
      balances[j] = NO_BALANCE
    end
    local prior = fresh[id] or current[i] or previous[i]
    if prior then
      code, leg = recall_journal(prior, term, keys[i])
      if code == SETTLED then
        code = COMMITTED
      elseif code == COMMITTED then
        -- Committed across shards before a resize brought the legs together: still on its way.
        code = OUTCOME_UNKNOWN
      end
    elseif oldest < cutoff and expired(id, cutoff) then
      code, any_expired = TRANSACTION_ID_EXPIRED, true
    else
      leg, code = post_legs(book, legs, first, last, keys[i], conditions, incoming, entries)
      if not code then
        code = COMMITTED
        for j = first, last do
          balances[j] = book.available[book.index[legs[1][j]]]
        end
      end
      if code ~= OUTCOME_UNKNOWN then
        fresh[id] = prefix(code) .. term .. char(leg or 0)
        done[n + 1], done[n + 2] = id, fresh[id]
        n = n + 2
      end
    end
    codes[i], refused_legs[i] = code, leg or 0
    first = last + 1
  end
  remember(meta, done, n, newest, any_expired and cutoff)
  close_book(book)
  close_conditions(conditions)
  close_entries(entries)
  return leave({ codes, refused_legs, balances })
end

-- How many prepared legs there are whose amount is taken, for snapshot.
local function count_reserved(change)
  if change ~= 0 then
    redis.call('HINCRBY', 'meta', 'reserved', change)
  end
end

-- Step 1: checks legs and keeps them. A credit is not spendable yet; a debit goes from available to held;
-- a refund counts against its purchase.
-- columns: leg keys, then the legs' columns -> {codes}
local function prepare_legs(_, args)
  local meta, refused = enter_new(args[1])
  if refused then
    return refused
  end
  local columns = cmsgpack.unpack(args[2])
  local keys, legs = columns[1], { unpack(columns, 2) }
  local applied, applied_before = hmget('done:current', keys), hmget('done:previous', keys)
  local waiting = hmget('prepared', keys)
  local book, incoming = open_book(legs[1]), open_incoming(meta)
  local now = clock_ms()
  local conditions, big, stamp = open_conditions(now), incoming.big, struct.pack('<I6', now)
  local fresh, flat, n, codes, reserved = {}, {}, 0, {}, 0
  for j = 1, #keys do
    local key, code = keys[j], nil
    if applied[j] or applied_before[j] then
      -- R4: a late duplicate must not prepare an applied leg again.
      code = APPLIED
    elseif waiting[j] or fresh[key] then
      code = PREPARED
    else
      code = leg_refusal(book, legs, j, conditions, incoming)
      if not code then
        code = PREPARED
        local effect, amount = legs[2][j], legs[3][j]
        if effect == CREDIT or effect == REFUND then
          add_incoming(incoming, legs[1][j], amount)
          if effect == REFUND then
            set_refunded(conditions, legs[5][j], refunded(conditions, legs[5][j]) + amount)
          end
        else
          local k = book.index[legs[1][j]]
          book.available[k], book.held[k] = book.available[k] - amount, book.held[k] + amount
          book.dirty[k] = true
          reserved = reserved + 1
        end
        fresh[key] = true
        flat[n + 1], flat[n + 2] = key, stamp .. legs[7][j]
        n = n + 2
      end
    end
    codes[j] = code
  end
  if n > 0 then
    write('HSET', 'prepared', flat, n)
    close_book(book)
    close_conditions(conditions)
    close_incoming(incoming)
    count_reserved(reserved)
    if incoming.big > big then
      redis.call('HINCRBY', 'meta', 'big', incoming.big - big)
    end
  end
  return leave({ codes })
end

-- Step 2, on the shard of the first leg: the commit point. verdicts: 0 to commit, or a participant's
-- refusal to record, with the leg it concerns.
-- columns: decisions, keys, terms, verdicts, refused legs, bodies, settled, then the first legs' columns
-- -> {codes, refused legs, available balances of the first legs}
local function decide_journals(_, args)
  local meta, refused = enter_new(args[1])
  if refused then
    return refused
  end
  local oldest, newest = tonumber(args[2]), tonumber(args[3])
  local columns = cmsgpack.unpack(args[4])
  local decisions, keys, terms, verdicts, verdict_legs, bodies, settled = unpack(columns)
  local legs = { unpack(columns, 8) }
  local now = clock_ms()
  local cutoff, incoming, conditions = cutoff_ms(meta, now), open_incoming(meta), open_conditions(now)
  local prefix, stamp = prefixes(now)
  local current, previous = hmget('done:current', decisions), hmget('done:previous', decisions)
  local book, entries = open_book(legs[1]), open_entries()
  local fresh, done, n, any_expired = {}, {}, 0, false
  local unsettled, u = {}, 0
  local codes, refused_legs, balances = {}, {}, {}
  for i = 1, #decisions do
    local id, term = decisions[i], terms[i]
    local code, leg
    balances[i] = NO_BALANCE
    if fresh[id] then
      -- Not recall: what this call commits is not in `unsettled` yet.
      local prior = fresh[id]
      if sub(prior, 8, 7 + #term) == term then
        code, leg = byte(prior), byte(prior, 8 + #term)
      else
        code, leg = TRANSACTION_ID_REUSED, 0
      end
    elseif current[i] or previous[i] then
      code, leg = recall_journal(current[i] or previous[i], term, keys[i])
    elseif oldest < cutoff and expired(id, cutoff) then
      code, any_expired = TRANSACTION_ID_EXPIRED, true
    else
      code, leg = verdicts[i], verdict_legs[i]
      if code == 0 then
        code, leg = leg_refusal(book, legs, i, conditions, incoming), 0
        if not code then
          code = COMMITTED
          local delta, held_delta = apply_leg(book, legs, i, conditions, keys[i])
          local k = book.index[legs[1][i]]
          balances[i] = book.available[k]
          add_entry(entries, leg_key(keys[i], 0), legs[7][i], delta, held_delta, book, k)
          unsettled[u + 1], unsettled[u + 2] = keys[i], stamp .. bodies[i]
          u = u + 2
        end
      end
      fresh[id] = prefix(code) .. term .. char(leg)
      done[n + 1], done[n + 2] = id, fresh[id]
      n = n + 2
    end
    codes[i], refused_legs[i] = code, leg or 0
  end
  remember(meta, done, n, newest, any_expired and cutoff)
  close_book(book)
  close_conditions(conditions)
  write('HSET', 'unsettled', unsettled, u)
  close_entries(entries)
  write('HDEL', 'unsettled', settled, #settled)
  return leave({ codes, refused_legs, balances })
end

-- The effect, and the name of the hold or purchase, in a leg's body that is kept with its time.
local function leg_condition(leg)
  local payer_length, payee_length = byte(leg, 23, 24)
  local tail = 25 + payer_length + payee_length
  return byte(leg, tail), sub(leg, tail + 22, tail + 37) .. sub(leg, 20, 21)
end

-- Steps 3 and 4. verdicts: COMMITTED applies a leg, all else drops it.
-- columns: leg keys, verdicts -> {codes, available balances}
local function finish_legs(_, args)
  local _, stale = enter(args[1])
  if stale then
    return stale
  end
  local keys, verdicts = unpack(cmsgpack.unpack(args[2]))
  local kept, names = hmget('prepared', keys), {}
  for j = 1, #keys do
    names[j] = kept[j] and leg_payee(kept[j]) or ''
  end
  local book, conditions, entries = open_book(names), open_conditions(0), open_entries()
  local available, held = book.available, book.held
  local fresh, done, n, gone, g = {}, {}, 0, {}, 0
  local codes, balances, alarms, big, reserved = {}, {}, 0, 0, 0
  local arrivals = open_arrivals()
  for j = 1, #keys do
    local key, leg, apply = keys[j], kept[j], verdicts[j] == COMMITTED
    codes[j], balances[j] = apply and FINISHED or DROPPED, NO_BALANCE
    if leg and not fresh[key] then
      fresh[key] = true
      g = g + 1
      gone[g] = key
      local k, amount = book.index[names[j]], leg_amount(leg)
      if arrivals and amount > 0 then
        arrived(arrivals, names[j], amount)
      end
      if amount > BIG then
        big = big + 1
      elseif amount < 0 then
        -- What was reserved leaves for good, or is available again.
        reserved = reserved + 1
        held[k] = held[k] + amount
        book.dirty[k] = true
      end
      if apply then
        if amount > 0 then
          available[k] = available[k] + amount
        end
        book.version[k] = book.version[k] + 1
        book.dirty[k] = true
        balances[j] = available[k]
        done[n + 1], done[n + 2] = key, sub(leg, 20, 21)
        n = n + 2
        add_entry(entries, key, sub(leg, 7), amount, 0, book, k)
      elseif amount < 0 then
        available[k] = available[k] - amount
      else
        local effect, related = leg_condition(leg)
        if effect == REFUND then
          set_refunded(conditions, related, refunded(conditions, related) - amount)
        end
      end
    elseif apply and not fresh[key]
      and not redis.call('HGET', 'done:current', key) and not redis.call('HGET', 'done:previous', key) then
      -- R5: committed, yet neither prepared nor applied. Never answered with ok.
      codes[j] = MISSING_LEG
      alarms = alarms + 1
    end
  end
  if alarms > 0 then
    redis.call('HINCRBY', 'meta', 'alarms', alarms)
  end
  if g > 0 then
    write('HDEL', 'prepared', gone, g)
    close_book(book)
    close_conditions(conditions)
    if arrivals then
      close_incoming(arrivals)
    end
    count_reserved(-reserved)
    if big > 0 then
      redis.call('HINCRBY', 'meta', 'big', -big)
    end
    write('HSET', 'done:current', done, n)
    close_entries(entries)
  end
  return leave({ codes, balances })
end

-- Checks legs; writes nothing. columns: those of legs -> {codes}, 0 for a leg that could be carried out
local function check(_, args)
  local meta, stale = enter(args[1])
  if stale then
    return stale
  end
  local legs = cmsgpack.unpack(args[2])
  local book, incoming = open_book(legs[1]), open_incoming(meta)
  local conditions = open_conditions(clock_ms())
  local codes = {}
  for j = 1, #legs[1] do
    codes[j] = leg_refusal(book, legs, j, conditions, incoming) or 0
  end
  return cmsgpack.pack({ codes })
end

-- Ends holds whose time is over, the longest overdue first. args[2]: how many at the most
-- -> how many
local function expire(_, args)
  local _, stale = enter(args[1])
  if stale then
    return stale
  end
  local now = clock_ms()
  local due = redis.call('ZRANGEBYSCORE', 'holds:due', '-inf', string.format('%.0f', now), 'LIMIT', 0, args[2])
  local records, names, conditions = hmget('holds', due), {}, open_conditions(now)
  for i = 1, #due do
    names[i] = records[i] and leg_payee(sub(records[i], 35)) or ''
  end
  local book, entries, alarms = open_book(names), open_entries(), 0
  for i = 1, #due do
    local k = book.index[names[i]]
    if records[i] and book.available[k] then
      local _, amount = struct.unpack(HOLD_HEAD, records[i])
      local body = sub(records[i], 41)
      book.available[k], book.held[k] = book.available[k] + amount, book.held[k] - amount
      book.version[k] = book.version[k] + 1
      book.dirty[k] = true
      local ended = sub(body, 1, KIND_AT - 1) .. EXPIRY .. sub(body, KIND_AT + 1)
      add_entry(entries, leg_key(sub(records[i], 17, 40), 1), ended, 0, -amount, book, k)
    else
      -- A hold without its record or account must not be; it must not stand in the way of others either.
      alarms = alarms + 1
    end
    set_hold(conditions, due[i], false)
  end
  if alarms > 0 then
    redis.call('HINCRBY', 'meta', 'alarms', alarms)
  end
  close_book(book)
  close_conditions(conditions)
  close_entries(entries)
  if #due > 0 then
    -- Not when it did nothing: by this count verify tells whether anything moved.
    redis.call('HINCRBY', 'meta', 'calls', 1)
  end
  return #due
end
