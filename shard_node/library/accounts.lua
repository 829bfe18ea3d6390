---------------------------------------------------------------- accounts

-- The accounts named in one or two columns, unpacked into columns of their own.
local function open_book(first, second)
  local index, names, count = {}, {}, 0
  local available, held, version, floor, state, currency = {}, {}, {}, {}, {}, {}
  local unpack_record = struct.unpack
  for _, column in ipairs({ first, second }) do
    -- A name that is there twice is read twice: that costs less than to look for it first.
    local records = hmget('accounts', column)
    for i = 1, #column do
      local name = column[i]
      if not index[name] then
        count = count + 1
        index[name], names[count] = count, name
        local record = records[i]
        if record then
          available[count], held[count], version[count], floor[count], state[count], currency[count] =
            unpack_record(ACCOUNT, record)
        elseif byte(name) == 64 then
          -- A system account (@world:EUR) begins with its first use.
          available[count], held[count], version[count], floor[count], state[count] = 0, 0, 0, -MAX_MINOR, OPEN
          currency[count] = sub(name, -3)
        end
      end
    end
  end
  return {
    index = index, names = names, count = count, dirty = {},
    available = available, held = held, version = version,
    floor = floor, state = state, currency = currency,
  }
end

-- The limits of account k, which has some: maximum balance and maximum transfer, 0 for none.
local function limits_of(book, k)
  return struct.unpack(LIMITS, redis.call('HGET', 'limits', book.names[k]))
end

local function close_book(book)
  local available, held, version = book.available, book.held, book.version
  local floor, state, currency = book.floor, book.state, book.currency
  local names, dirty = book.names, book.dirty
  local flat, n, pack_record = {}, 0, struct.pack
  for k = 1, book.count do
    if dirty[k] then
      flat[n + 1] = names[k]
      flat[n + 2] = pack_record(ACCOUNT, available[k], held[k], version[k], floor[k], state[k], currency[k])
      n = n + 2
    end
  end
  write('HSET', 'accounts', flat, n)
end

-- What is prepared on the shard and still has to come, so that a finish need never refuse it. `bound` is
-- more than any account can have coming, unless a big credit is prepared: then it says to look closely.
local function open_incoming(meta)
  local big = tonumber(meta[5] or 0)
  -- Of journals their number is known, of transfers their sum.
  local bound = big > 0 and MAX_MINOR or redis.call('HLEN', 'prepared') * BIG + tonumber(meta[9] or 0)
  return { big = big, bound = bound, payees = {}, amounts = {}, count = 0, coming = {}, touched = {} }
end

-- What an account with a maximum balance has coming is kept by account, in `coming`: near such a limit
-- adding up all that is prepared would be everyday's work. Nil for accounts that nobody asked about.
local function coming_to(incoming, payee)
  local sum = incoming.coming[payee]
  if not sum then
    sum = tonumber(redis.call('HGET', 'coming', payee) or 0)
    incoming.coming[payee] = sum
  end
  return sum
end

local function close_incoming(incoming)
  for payee in pairs(incoming.touched) do
    keep_sum('coming', payee, incoming.coming[payee])
  end
end

-- For calls that end prepared legs: nil while no such account has anything coming.
local function open_arrivals()
  return redis.call('EXISTS', 'coming') == 1 and { coming = {}, touched = {} } or nil
end

-- A prepared credit is prepared no longer.
local function arrived(arrivals, payee, amount)
  local sum = coming_to(arrivals, payee)
  if sum > 0 then
    arrivals.coming[payee] = sum - amount
    arrivals.touched[payee] = true
  end
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
  if incoming.coming[payee] then
    incoming.coming[payee] = incoming.coming[payee] + amount
    incoming.touched[payee] = true
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

-- Negative for a leg that takes.
local function leg_amount(leg)
  return struct.unpack('<i8', leg, 7)
end

-- Calls visit(account, amount, decision) for every transfer that is prepared.
local function visit_attempts(visit)
  local fields = redis.call('HKEYS', 'attempts')
  for i = 1, #fields do
    if #fields[i] == ATTEMPT then
      local codes, decisions, payees, amounts = unpack(redis.call('HMGET', 'attempts', fields[i],
        fields[i] .. 'd', fields[i] .. 'p', fields[i] .. 'a'))
      local count = #amounts / 8
      codes, decisions = every(sub(codes, ATTEMPT_HEAD + 1), count), split('c18', decisions, count)
      payees, amounts = split('Bc0', payees, count), split('i8', amounts, count)
      for row = 1, count do
        if byte(codes, row) == PREPARED then
          visit(payees[row], amounts[row], decisions[row])
        end
      end
    end
  end
end

-- Calls visit(account, amount) for every leg that is prepared: of journals, and of transfers.
local function visit_prepared(visit)
  local legs = redis.call('HVALS', 'prepared')
  for i = 1, #legs do
    visit(leg_payee(legs[i]), leg_amount(legs[i]))
  end
  visit_attempts(visit)
end

-- Exactly what one account has coming: adds up all that is prepared, once a call and rarely at all.
local function incoming_to(incoming, payee)
  if not incoming.exact then
    local exact = {}
    visit_prepared(function(name, amount)
      if amount > 0 then
        exact[name] = (exact[name] or 0) + amount
      end
    end)
    for i = 1, incoming.count do
      local name = incoming.payees[i]
      exact[name] = (exact[name] or 0) + incoming.amounts[i]
    end
    incoming.exact = exact
  end
  return (incoming.exact[payee] or 0) - (incoming.exact_less and incoming.exact_less[payee] or 0)
end

local function blocked(state)
  state = state % LIMITED
  if state ~= OPEN then
    return state == FROZEN and ACCOUNT_FROZEN or ACCOUNT_CLOSED
  end
end

-- Why account k cannot take `amount`, or nil.
local function credit_refusal(book, k, amount, currency, incoming)
  local available = book.available[k]
  if not available then
    return ACCOUNT_NOT_FOUND
  end
  local state, most = book.state[k], 0
  if state ~= OPEN then
    local code = blocked(state)
    if code then
      return code
    end
    most = limits_of(book, k)
  end
  if book.currency[k] ~= currency then
    return CURRENCY_MISMATCH
  end
  local balance = available + book.held[k] + amount
  if most > 0 and balance + coming_to(incoming, book.names[k]) > most then
    return BALANCE_LIMIT
  end
  if math.max(balance, amount) + incoming.bound > MAX_MINOR then
    local coming = incoming_to(incoming, book.names[k])
    -- The first limit keeps the sum itself exact, also for an account far below zero.
    if coming + amount > MAX_MINOR or balance + coming > MAX_MINOR then
      return BALANCE_LIMIT
    end
  end
end

-- Why `amount` cannot be taken from account k, or nil.
local function debit_refusal(book, k, amount, currency)
  local available = book.available[k]
  if not available then
    return ACCOUNT_NOT_FOUND
  end
  local state = book.state[k]
  if state ~= OPEN then
    local code = blocked(state)
    if code then
      return code
    end
    local _, most = limits_of(book, k)
    if most > 0 and amount > most then
      return TRANSFER_LIMIT
    end
  end
  if book.currency[k] ~= currency then
    return CURRENCY_MISMATCH
  end
  local floor = book.floor[k]
  if available - amount < floor then
    return floor == -MAX_MINOR and BALANCE_LIMIT or INSUFFICIENT_FUNDS
  end
end

-- Records as callers get them: those of accounts with limits have them at their end.
local function with_limits(names, records)
  for i = 1, #names do
    local record = records[i]
    if record and byte(record, 33) >= LIMITED then
      records[i] = record .. redis.call('HGET', 'limits', names[i])
    end
  end
  return records
end

-- Opens accounts. columns: names, slots, currencies, floors, maximum balances, maximum transfers
-- -> {codes, records}
local function open(_, args)
  local _, refused = enter_new(args[1])
  if refused then
    return refused
  end
  local names, slots, currencies, floors, balances, transfers = unpack(cmsgpack.unpack(args[2]))
  local existing, fresh = with_limits(names, hmget('accounts', names)), {}
  local codes, records, flat, limits = {}, {}, {}, {}
  local members, made, count = {}, { {}, {}, {}, {}, {} }, 0
  for i = 1, #names do
    local name = names[i]
    local limited = balances[i] > 0 or transfers[i] > 0
    local tail = limited and struct.pack(LIMITS, balances[i], transfers[i]) or ''
    local record = existing[i] or fresh[name]
    codes[i] = COMMITTED
    if record then
      local _, _, _, floor, _, currency = struct.unpack(ACCOUNT, record)
      if floor ~= floors[i] or currency ~= currencies[i] or sub(record, 37) ~= tail then
        codes[i] = ACCOUNT_EXISTS
      end
    else
      local bare = struct.pack(ACCOUNT, 0, 0, 0, floors[i], limited and LIMITED or OPEN, currencies[i])
      record = bare .. tail
      fresh[name] = record
      table.insert(flat, name)
      table.insert(flat, bare)
      if limited then
        table.insert(limits, name)
        table.insert(limits, tail)
      end
      local slot = slots[i]
      members[slot] = members[slot] or {}
      table.insert(members[slot], name)
      table.insert(members[slot], '')
      count = count + 1
      made[1][count], made[2][count], made[3][count] = name, currencies[i], floors[i]
      made[4][count], made[5][count] = balances[i], transfers[i]
    end
    records[i] = record
  end
  if count > 0 then
    write('HSET', 'accounts', flat, #flat)
    write('HSET', 'limits', limits, #limits)
    for slot, ids in pairs(members) do
      -- A hash without values: of a few short names Redis 7.0 keeps a hash in half the memory of a set.
      write('HSET', 'slot:' .. slot, ids, #ids)
    end
    append({ 'open', unpack(made) }, count)
  end
  return leave({ codes, records })
end

-- Reads accounts; writes nothing. columns: names -> a list of records
local function accounts(_, args)
  local _, stale = enter(args[1])
  if stale then
    return stale
  end
  local names = cmsgpack.unpack(args[2])[1]
  return with_limits(names, hmget('accounts', names))
end

-- Accounts that one call of account_names looks at, about: a millisecond of the shard's time.
local NAMES_A_CALL = 1000

-- Lists accounts by slot; writes nothing. args[2]: where to go on in the first slot, '0' for its beginning.
-- columns: slots -> {cursor, names}: a list for each slot that was read, of the last one only what lies before
-- the cursor, unless that is '0'. A name may come twice when its slot grows meanwhile.
local function account_names(_, args)
  local _, stale = enter(args[1])
  if stale then
    return stale
  end
  local cursor, slots = args[2], cmsgpack.unpack(args[3])[1]
  local names, count = {}, 0
  for i = 1, #slots do
    local key = 'slot:' .. slots[i]
    names[i] = {}
    -- Many slots of a small cluster are empty, which a scan takes long to find out.
    if redis.call('EXISTS', key) == 1 then
      local fields
      cursor, fields = unpack(redis.call('HSCAN', key, cursor, 'COUNT', NAMES_A_CALL))
      for k = 1, #fields, 2 do
        names[i][(k + 1) / 2] = fields[k]
      end
      count = count + #names[i]
    end
    if cursor ~= '0' or count >= NAMES_A_CALL then
      break
    end
  end
  return cmsgpack.pack({ cursor, names })
end

-- Reads accounts at one moment together with what is held of each only because a journal's debit is
-- prepared: the ledger does not know of that yet. columns: names -> {records, reserved}, '' for none
local function snapshot(_, args)
  local _, stale = enter(args[1])
  if stale then
    return stale
  end
  local names = cmsgpack.unpack(args[2])[1]
  local records = with_limits(names, hmget('accounts', names))
  local sums, reserved = {}, {}
  if tonumber(redis.call('HGET', 'meta', 'reserved') or 0) > 0 then
    local legs = redis.call('HVALS', 'prepared')
    for i = 1, #legs do
      local name, amount = leg_payee(legs[i]), leg_amount(legs[i])
      if amount < 0 then
        sums[name] = (sums[name] or 0) - amount
      end
    end
  end
  for i = 1, #names do
    records[i] = records[i] or ''
    reserved[i] = sums[names[i]] or 0
  end
  return cmsgpack.pack({ records, reserved })
end

-- Entries of the ledger by the change of state, and the state after it.
local FREEZE, UNFREEZE, CLOSE = 11, 12, 13

local function on_its_way_to(name)
  local found = false
  visit_prepared(function(account)
    found = found or account == name
  end)
  return found
end

-- The state that account k gets by `change`, or nil and why not.
local function next_state(book, k, change)
  if not book.available[k] then
    return nil, ACCOUNT_NOT_FOUND
  end
  local state = book.state[k] % LIMITED
  if change == CLOSE then
    if state ~= CLOSED and (book.available[k] ~= 0 or book.held[k] ~= 0) then
      return nil, ACCOUNT_NOT_EMPTY
    elseif state ~= CLOSED and on_its_way_to(book.names[k]) then
      return nil, ACCOUNT_IN_USE
    end
    return CLOSED
  elseif state == CLOSED then
    return nil, ACCOUNT_CLOSED
  end
  return change == FREEZE and FROZEN or OPEN
end

-- Freezes, unfreezes or closes accounts; one that is so already is left as it is. args[2]: '1' to check
-- only. columns: names, changes -> {codes, records}, VALID for what was only checked, '' for no account
local function set_state(_, args)
  local _, refused = enter_new(args[1])
  if refused then
    return refused
  end
  local dry = args[2] == '1'
  local names, changes = unpack(cmsgpack.unpack(args[3]))
  local book = open_book(names)
  local codes, ledger, count = {}, { {}, {}, {}, {}, {} }, 0
  for i = 1, #names do
    local k, change = book.index[names[i]], changes[i]
    local state, code = next_state(book, k, change)
    codes[i] = code or (dry and VALID or COMMITTED)
    if state and not dry and state ~= book.state[k] % LIMITED then
      book.state[k] = book.state[k] - book.state[k] % LIMITED + state
      book.version[k] = book.version[k] + 1
      book.dirty[k] = true
      count = count + 1
      ledger[1][count], ledger[2][count], ledger[3][count] = names[i], change, book.currency[k]
      ledger[4][count], ledger[5][count] = book.available[k] + book.held[k], book.version[k]
    end
  end
  if count > 0 then
    close_book(book)
    append({ 'state', unpack(ledger) }, count)
  end
  local records = with_limits(names, hmget('accounts', names))
  for i = 1, #names do
    records[i] = records[i] or ''
  end
  return leave({ codes, records })
end
