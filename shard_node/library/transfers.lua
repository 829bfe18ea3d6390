-- Transfers between accounts of this shard.
-- columns: decisions, keys, terms, payers, payees, amounts, currencies, bodies
-- -> {codes, payer balances, payee balances}
local function post(_, args)
  local meta, refused = enter_new(args[1])
  if refused then
    return refused
  end
  local oldest, newest = tonumber(args[2]), tonumber(args[3])
  local decisions, keys, terms, payers, payees, amounts, currencies, bodies = unpack(cmsgpack.unpack(args[4]))
  local now = clock_ms()
  local cutoff, incoming = cutoff_ms(meta, now), open_incoming(meta)
  local prefix = prefixes(now)
  local current, previous = hmget('done:current', decisions), hmget('done:previous', decisions)
  local book = open_book(payers, payees)
  local index, available, held = book.index, book.available, book.held
  local version, dirty = book.version, book.dirty
  local fresh, done, n = {}, {}, 0
  local codes, payer_balances, payee_balances = {}, {}, {}
  local l_keys, l_bodies, l_pb, l_pv, l_rb, l_rv, l = {}, {}, {}, {}, {}, {}, 0
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
      if code then
        code = code + PAYEE
      else
        code = debit_refusal(book, payer, amount, currency)
      end
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
        l_keys[l], l_bodies[l] = keys[i], bodies[i]
        l_pb[l], l_pv[l] = available[payer] + held[payer], version[payer]
        l_rb[l], l_rv[l] = available[payee] + held[payee], version[payee]
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
    append({ 'post', l_keys, l_bodies, l_pb, l_pv, l_rb, l_rv }, 2 * l)
  end
  return leave({ codes, payer_balances, payee_balances })
end

-- Step 1, on the payee's shard: checks the credit and keeps it, not spendable.
-- columns: keys, payees, amounts, currencies, bodies -> {codes}
local function prepare(_, args)
  local meta, refused = enter_new(args[1])
  if refused then
    return refused
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
      if code then
        code = code + PAYEE
      else
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
    close_incoming(incoming)
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
  local meta, refused = enter_new(args[1])
  if refused then
    return refused
  end
  local oldest, newest = tonumber(args[2]), tonumber(args[3])
  local decisions, keys, terms, payers, amounts, currencies, bodies, verdicts, settled =
    unpack(cmsgpack.unpack(args[4]))
  local now = clock_ms()
  local cutoff = cutoff_ms(meta, now)
  local prefix, stamp = prefixes(now)
  local current, previous = hmget('done:current', decisions), hmget('done:previous', decisions)
  local book = open_book(payers)
  local index, available, held = book.index, book.available, book.held
  local version, dirty = book.version, book.dirty
  local fresh, done, n = {}, {}, 0
  local unsettled, u = {}, 0
  local codes, balances = {}, {}
  local l_keys, l_bodies, l_balances, l_versions, l = {}, {}, {}, {}, 0
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
          l_keys[l], l_bodies[l] = keys[i], bodies[i]
          l_balances[l], l_versions[l] = balance + held[payer], version[payer]
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
    append({ 'decide', l_keys, l_bodies, l_balances, l_versions }, l)
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
  local index, available, held = book.index, book.available, book.held
  local version, dirty = book.version, book.dirty
  local big, arrivals = 0, open_arrivals()
  local fresh, done, n, gone, g = {}, {}, 0, {}, 0
  local codes, balances, alarms = {}, {}, 0
  local l_keys, l_bodies, l_balances, l_versions, l = {}, {}, {}, {}, 0
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
      if arrivals then
        arrived(arrivals, leg_payee(leg), amount)
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
        l_keys[l], l_bodies[l] = key, sub(leg, 7)
        l_balances[l], l_versions[l] = balance + held[payee], version[payee]
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
    if arrivals then
      close_incoming(arrivals)
    end
    if big > 0 then
      redis.call('HINCRBY', 'meta', 'big', -big)
    end
  end
  if l > 0 then
    close_book(book)
    write('HSET', 'done:current', done, n)
    append({ 'finish', l_keys, l_bodies, l_balances, l_versions }, l)
  end
  return leave({ codes, balances })
end

