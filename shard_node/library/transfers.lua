---------------------------------------------------------------- transfers
-- Two plain legs; the hot path. Transfers come in bundles, see bundles.py: columns as strings, of which a
-- function splits what it needs and keeps the rest as it came.
--
-- Across shards a bundle is one attempt, and is kept as a whole: on the payees' shard in `attempts` until it has
-- ended, on the payers' shard in `commits` until it is settled. No field of a hash is read or written for a single
-- transfer but its accounts and its outcome. The big columns have fields of their own, of which a function reads
-- those that it needs: Lua reads every byte of a string that it is given.
--   attempts  attempt id           <time I6><sum of small credits i8><big credits I4><codes>
--             attempt id .. letter d: decisions, t: terms, p: payees, a: amounts, b: bodies
--   commits   name 6               {attempt id, payees' shard, codes, time}
--             name .. letter       d: decisions, t: terms, b: bodies
-- A commit's name is the time in the outcomes of its transfers, which no other commit of this shard has.
-- R4: `ended:current` and `ended:previous` have the ids of attempts that ended here.

---------------------------------------------------------------- outcomes

-- The outcomes of a bundle's ids that are remembered. An id younger than all that the older generation has
-- cannot be there.
local function priors(meta, decisions, oldest)
  local found = hmget('done:current', decisions)
  if oldest > tonumber(meta[8] or 0) then
    return found
  end
  local before = hmget('done:previous', decisions)
  for i = 1, #decisions do
    found[i] = found[i] or before[i]
  end
  return found
end

-- The commit under a name, if it is not settled and committed that transfer: its attempt, and its transfers. Of one
-- that was posted in the millisecond of a commit, and so has its time, the name says nothing.
local function commit_of(commits, name, decision)
  local commit = commits[name]
  if commit == nil then
    commit = read_commit(name) or false
    if commit then
      commit = { attempt = commit[1], committed = add_committed({}, commit), told = {} }
    end
    commits[name] = commit
  end
  return commit and commit.committed[decision] and commit
end

-- The outcome of an earlier call, as the payers' shard tells it (R3): COMMITTED to the attempt that committed it,
-- while that is unsettled; ELSEWHERE to any other; SETTLED after, or when one call on one shard committed it.
-- `commits` keeps what was read, and of which transfers COMMITTED was told by this call.
local function recall_transfer(prior, term, decision, attempt, commits)
  if sub(prior, 8) ~= term then
    return TRANSACTION_ID_REUSED
  end
  local code = byte(prior)
  if code ~= COMMITTED then
    return code
  end
  local name = sub(prior, 2, 7)
  local commit = commit_of(commits, name, decision)
  if not commit then
    return SETTLED
  elseif commit.attempt == attempt and not commit.told[decision] then
    -- When a bundle has it twice, only the first row was committed, and only that one's leg may be applied.
    commit.told[decision] = true
    return COMMITTED
  end
  return ELSEWHERE, name
end

-- Whether the attempt committed before some of the transfers that were found.
local function was_decided(found, decisions, attempt, commits)
  for i = 1, #decisions do
    if found[i] and byte(found[i]) == COMMITTED then
      local commit = commit_of(commits, sub(found[i], 2, 7), decisions[i])
      if commit and commit.attempt == attempt then
        return true
      end
    end
  end
  return false
end

---------------------------------------------------------------- one shard

-- Transfers between accounts of this shard. args: oldest, newest, whether balances are wanted, then the columns
-- decisions, terms, payers, payees, amounts, currencies, bodies -> {codes, payer balances, payee balances}
local function post(_, args)
  local meta, refused = enter_new(args[1])
  if refused then
    return refused
  end
  local oldest, newest, with_balances = tonumber(args[2]), tonumber(args[3]), args[4] == '1'
  local count = #args[5] / DECISION
  local decisions, terms = split('c18', args[5], count), split('Bc0', args[6], count)
  local payers, payees = split('Bc0', args[7], count), split('Bc0', args[8], count)
  local amounts = split('i8', args[9], count)
  local currencies, currency = currencies_of(args[10], count)
  local now = clock_ms()
  local cutoff, incoming = cutoff_ms(meta, now), open_incoming(meta)
  local room = MAX_MINOR - incoming.bound
  local prefix = prefixes(now)
  local accepted = prefix(COMMITTED)
  local found, commits = priors(meta, decisions, oldest), {}
  local book = open_book(payers, payees)
  local index, available, held, version = book.index, book.available, book.held, book.version
  local state, floor, held_in, dirty = book.state, book.floor, book.currency, book.dirty
  local fresh, done, n = {}, {}, 0
  local odd, without_entry, any_expired = {}, {}, false
  local payer_balances, payee_balances = {}, {}
  local pb, pv, rb, rv, l = {}, {}, {}, {}, 0
  for i = 1, count do
    local id, term = decisions[i], terms[i]
    local prior, code = found[i] or fresh[id], nil
    if prior then
      code = recall_transfer(prior, term, id, nil, commits)
      if code == SETTLED then
        code = COMMITTED
      elseif code == ELSEWHERE then
        -- Committed across shards before a resize brought the two together: still on its way.
        code = OUTCOME_UNKNOWN
      end
    elseif oldest < cutoff and expired(id, cutoff) then
      code, any_expired = TRANSACTION_ID_EXPIRED, true
    else
      local amount, own = amounts[i], currency or currencies[i]
      local payer, payee = index[payers[i]], index[payees[i]]
      local left, has = available[payer], available[payee]
      -- Most are plain; the others are looked at closely.
      if not (left and has and state[payer] == OPEN and state[payee] == OPEN and held_in[payer] == own
        and held_in[payee] == own and left - amount >= floor[payer]
        and amount <= room and has + held[payee] + amount <= room) then
        code = credit_refusal(book, payee, amount, own, incoming)
        if code then
          code = code + PAYEE
        else
          code = debit_refusal(book, payer, amount, own)
        end
      end
      local record
      if code then
        record = prefix(code) .. term
      else
        record = accepted .. term
        left, has = left - amount, has + amount
        local payer_version, payee_version = version[payer] + 1, version[payee] + 1
        available[payer], available[payee] = left, has
        version[payer], version[payee] = payer_version, payee_version
        dirty[payer], dirty[payee] = true, true
        payer_balances[i], payee_balances[i] = left, has
        l = l + 1
        pb[l], pv[l] = left + held[payer], payer_version
        rb[l], rv[l] = has + held[payee], payee_version
      end
      fresh[id] = record
      done[n + 1], done[n + 2] = id, record
      n = n + 2
    end
    if code then
      odd[i], without_entry[i] = code, 0
      payer_balances[i], payee_balances[i] = NO_BALANCE, NO_BALANCE
    end
  end
  remember(meta, done, n, newest, any_expired and cutoff)
  if l > 0 then
    close_book(book)
    append_bundle(2 * l, 'post', join_codes(COMMITTED, without_entry, count), args[5], args[6], args[11],
      join_numbers(pb, l), join_numbers(pv, l), join_numbers(rb, l), join_numbers(rv, l))
  end
  local codes = join_codes(COMMITTED, odd, count)
  if not with_balances then
    return leave({ codes, '', '' })
  end
  return leave({ codes, join_numbers(payer_balances, count), join_numbers(payee_balances, count) })
end

---------------------------------------------------------------- prepare

-- What attempts have prepared, summed by transfer and payee: at most one of all attempts at a transfer will be
-- applied, so the others do not stand in its way.
local function prepared_before()
  local sums = {}
  visit_attempts(function(payee, amount, decision)
    sums[decision .. payee] = (sums[decision .. payee] or 0) + amount
  end)
  return sums
end

-- What `ask` answers when so much less is coming to an account.
local function without(incoming, payee, sum, ask)
  -- Known by now only of an account with a maximum balance.
  local coming = incoming.coming[payee]
  incoming.coming[payee] = coming and coming - sum
  incoming.exact_less = { [payee] = sum }
  local answer = ask()
  incoming.coming[payee] = coming
  incoming.exact_less = nil
  return answer
end

-- Credits that need a closer look. -> refusals by row, sum of the small ones that wait, number of the big ones
local function check_closely(meta, decisions, payees, amounts, currencies, currency)
  local book, incoming = open_book(payees), open_incoming(meta)
  local odd, sum, big, before = {}, 0, 0, nil
  for i = 1, #payees do
    local payee, amount = payees[i], amounts[i]
    local code = credit_refusal(book, book.index[payee], amount, currency or currencies[i], incoming)
    if code == BALANCE_LIMIT then
      -- Read once a bundle: all its rows may be refused for that.
      before = before or prepared_before()
      local ghosts = before[sub(decisions, (i - 1) * DECISION + 1, i * DECISION) .. payee]
      if ghosts then
        code = without(incoming, payee, ghosts, function()
          return credit_refusal(book, book.index[payee], amount, currency or currencies[i], incoming)
        end)
      end
    end
    if code then
      odd[i] = code + PAYEE
    else
      add_incoming(incoming, payee, amount)
      if amount > BIG then
        big = big + 1
      else
        sum = sum + amount
      end
    end
  end
  close_incoming(incoming)
  return odd, sum, big
end

-- The sum of all credits, if each goes to an open account of its currency, without limits, and stays far from
-- 2^53; else nil.
local function sum_of_plain(meta, payees, amounts, currencies, currency)
  local incoming = open_incoming(meta)
  local room, sum = MAX_MINOR - incoming.bound, 0
  local records, balances_of = hmget('accounts', payees), struct.unpack
  local tail = currency and '\0' .. currency
  for i = 1, #payees do
    local record, amount = records[i], amounts[i]
    -- Its state and currency.
    if not record or sub(record, 33, 36) ~= (tail or '\0' .. currencies[i]) then
      return nil
    end
    local available, held = balances_of('<i8i8', record)
    sum = sum + amount
    -- As if all that comes went to this account, and also to one far below zero.
    if amount > BIG or sum > room or available + held + sum > room then
      return nil
    end
  end
  return sum
end

-- Step 1, on the payees' shard: checks credits and keeps them, not spendable.
-- args, for each attempt: id, decisions, terms, payees, amounts, currencies, bodies -> codes, a string an attempt
local function prepare(_, args)
  local meta, refused = enter_new(args[1])
  if refused then
    return refused
  end
  local now, reply, ids = clock_ms(), {}, {}
  for a = 2, #args, 7 do
    ids[#ids + 1] = args[a]
  end
  local kept, ended = hmget('attempts', ids), which_ended(ids)
  for n = 1, #ids do
    local a = 7 * n - 5
    local attempt, count = args[a], #args[a + 1] / DECISION
    if kept[n] then
      reply[n] = sub(kept[n], ATTEMPT_HEAD + 1)
    elseif ended[n] then
      -- R4: this comes from a connection that died long ago.
      reply[n] = char(ENDED)
    else
      local payees, amounts = split('Bc0', args[a + 3], count), split('i8', args[a + 4], count)
      local currencies, currency = currencies_of(args[a + 5], count)
      local odd, big = {}, 0
      local sum = sum_of_plain(meta, payees, amounts, currencies, currency)
      if not sum then
        odd, sum, big = check_closely(meta, args[a + 1], payees, amounts, currencies, currency)
      end
      local codes = join_codes(PREPARED, odd, count)
      if sum > 0 or big > 0 then
        meta[9] = redis.call('HINCRBY', 'meta', 'credits', string.format('%.0f', sum))
        redis.call('HSET', 'attempts', attempt, struct.pack('<I6i8I4', now, sum, big) .. codes,
          attempt .. 'd', args[a + 1], attempt .. 't', args[a + 2], attempt .. 'p', args[a + 3],
          attempt .. 'a', args[a + 4], attempt .. 'b', args[a + 6])
        if big > 0 then
          meta[5] = redis.call('HINCRBY', 'meta', 'big', big)
        end
      end
      reply[n] = codes
    end
  end
  return leave(reply)
end

---------------------------------------------------------------- decide

-- One attempt. `times`: oldest and newest id, the cutoff of ids, the name of its commit.
-- args from a: attempt id, payees' shard, verdicts, decisions, terms, payers, amounts, currencies, bodies
-- -> codes, payer balances, its commit's name or '', names of other commits that have rows of it
local function decide_attempt(meta, times, args, a, with_balances)
  local attempt, verdicts = args[a], args[a + 2]
  local count = #args[a + 3] / DECISION
  local decisions, terms = split('c18', args[a + 3], count), split('Bc0', args[a + 4], count)
  local payers, amounts = split('Bc0', args[a + 5], count), split('i8', args[a + 6], count)
  local currencies, currency = currencies_of(args[a + 7], count)
  local oldest, cutoff, name = times.oldest, times.cutoff, times.name
  local accepted = char(COMMITTED) .. name
  local found, commits, elsewhere = priors(meta, decisions, oldest), {}, {}
  local book = open_book(payers)
  local index, available, held, version = book.index, book.available, book.held, book.version
  local state, floor, held_in, dirty = book.state, book.floor, book.currency, book.dirty
  local fresh, done, n = {}, {}, 0
  local odd, without_entry, any_expired = {}, {}, false
  local balances, lb, lv, l = {}, {}, {}, 0
  local repeated = was_decided(found, decisions, attempt, commits)
  for i = 1, count do
    local id, term = decisions[i], terms[i]
    local code, other
    if found[i] then
      code, other = recall_transfer(found[i], term, id, attempt, commits)
    elseif fresh[id] then
      code = sub(fresh[id], 8) == term and byte(fresh[id]) or TRANSACTION_ID_REUSED
      if code == COMMITTED then
        -- Twice in one bundle: the second one waits for the first.
        code, other = ELSEWHERE, name
      end
    elseif repeated then
      -- It was refused by this attempt for what had been decided under its id, and that is forgotten by now. An
      -- attempt that committed once must not do so again: its first commit says how its legs end.
      code = TRANSACTION_ID_REUSED
    elseif oldest < cutoff and expired(id, cutoff) then
      code, any_expired = TRANSACTION_ID_EXPIRED, true
    else
      local payer, amount, own, record = index[payers[i]], amounts[i], currency or currencies[i], nil
      local left = available[payer]
      if verdicts ~= '' and byte(verdicts, i) ~= 0 then
        code = byte(verdicts, i)
      elseif not (left and state[payer] == OPEN and held_in[payer] == own and left - amount >= floor[payer]) then
        -- Most are plain; the others are looked at closely.
        code = debit_refusal(book, payer, amount, own)
      end
      if code then
        record = char(code) .. name .. term
      else
        record = accepted .. term
        local now_at = version[payer] + 1
        left = left - amount
        available[payer], version[payer], dirty[payer] = left, now_at, true
        balances[i] = left
        l = l + 1
        lb[l], lv[l] = left + held[payer], now_at
      end
      fresh[id] = record
      done[n + 1], done[n + 2] = id, record
      n = n + 2
    end
    if code then
      odd[i], without_entry[i] = code, 0
      balances[i] = NO_BALANCE
      if other then
        elsewhere[other] = true
      end
    end
  end
  remember(meta, done, n, times.newest, any_expired and cutoff)
  local codes = join_codes(COMMITTED, odd, count)
  if l > 0 then
    close_book(book)
    local committed = join_codes(COMMITTED, without_entry, count)
    redis.call('HSET', 'commits', name, cmsgpack.pack({ attempt, args[a + 1], codes, times.now }), name .. 'd', args[a + 3],
      name .. 't', args[a + 4], name .. 'b', args[a + 8])
    append_bundle(l, 'decide', committed, args[a + 3], args[a + 4], args[a + 8], join_numbers(lb, l),
      join_numbers(lv, l))
  end
  local others = {}
  for other in pairs(elsewhere) do
    others[#others + 1] = other
  end
  return codes, with_balances and join_numbers(balances, count) or '', l > 0 and name or '', others
end

local function forget_commits(names)
  if names ~= '' then
    local fields, n = {}, 0
    for _, name in ipairs(split('c6', names, #names / COMMIT)) do
      fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] = name, name .. 'd', name .. 't', name .. 'b'
      n = n + 4
    end
    write('HDEL', 'commits', fields, n)
  end
end

-- Step 2, on the payers' shard: the commit point. verdicts: 0 to commit, or the payee's refusal to record, a byte
-- a row; '' to commit all. Step 5 rides along: `settled` are names of commits that are finished.
-- args: oldest, newest, whether balances are wanted, settled, then for each attempt those of decide_attempt
-- -> {codes, balances, names, names of others}, a value an attempt
local function decide(_, args)
  local meta, refused = enter_new(args[1])
  if refused then
    return refused
  end
  local with_balances, now = args[4] == '1', clock_ms()
  local tick = math.max(ticks(now), tonumber(meta[10] or 0) + 1)
  local times = { now = now, oldest = tonumber(args[2]), newest = tonumber(args[3]), cutoff = cutoff_ms(meta, now) }
  local codes, balances, names, elsewhere, n = {}, {}, {}, {}, 0
  -- First: it only removes, and the names that are given out may not be among them.
  forget_commits(args[5])
  for a = 6, #args, 9 do
    n = n + 1
    times.name = struct.pack('<I6', tick + n - 1)
    codes[n], balances[n], names[n], elsewhere[n] = decide_attempt(meta, times, args, a, with_balances)
  end
  redis.call('HSET', 'meta', 'clock', string.format('%.0f', tick + n - 1))
  return leave({ codes, balances, names, elsewhere })
end

-- Step 5 by itself, when no decide is there to carry it. args: names of commits
local function settle_commits(_, args)
  local _, stale = enter(args[1])
  if stale then
    return stale
  end
  forget_commits(args[2])
  return leave({})
end

---------------------------------------------------------------- finish

-- One attempt that is kept. -> codes, payee balances
local function finish_attempt(attempt, head, verdicts, with_balances)
  local fields = { attempt .. 'd', attempt .. 't', attempt .. 'p', attempt .. 'a', attempt .. 'b' }
  local decisions, terms, payees, amounts, bodies = unpack(hmget('attempts', fields))
  local _, sum, big = struct.unpack('<I6i8I4', head)
  local kept, count = sub(head, ATTEMPT_HEAD + 1), #decisions / DECISION
  payees, amounts = split('Bc0', payees, count), split('i8', amounts, count)
  local all = kept == char(PREPARED) and verdicts == char(COMMITTED)
  local odd, without_entry, alarms = {}, {}, 0
  local arrivals, applied = open_arrivals(), payees
  if not all then
    kept, verdicts, applied = every(kept, count), every(verdicts, count), {}
    for i = 1, count do
      if byte(verdicts, i) ~= COMMITTED then
        odd[i], without_entry[i] = DROPPED, 0
      elseif byte(kept, i) ~= PREPARED then
        -- R5: committed, yet it was refused here.
        odd[i], without_entry[i] = MISSING_LEG, 0
        alarms = alarms + 1
      else
        applied[#applied + 1] = payees[i]
      end
    end
  end
  local book = open_book(applied)
  local index, available, held = book.index, book.available, book.held
  local version, dirty = book.version, book.dirty
  local balances, lb, lv, l = {}, {}, {}, 0
  for i = 1, count do
    if arrivals and (all or byte(kept, i) == PREPARED) then
      arrived(arrivals, payees[i], amounts[i])
    end
    if odd[i] then
      balances[i] = NO_BALANCE
    else
      local payee = index[payees[i]]
      local has, now_at = available[payee] + amounts[i], version[payee] + 1
      available[payee], version[payee], dirty[payee] = has, now_at, true
      balances[i] = has
      l = l + 1
      lb[l], lv[l] = has + held[payee], now_at
    end
  end
  if alarms > 0 then
    redis.call('HINCRBY', 'meta', 'alarms', alarms)
  end
  if arrivals then
    close_incoming(arrivals)
  end
  if big > 0 then
    redis.call('HINCRBY', 'meta', 'big', -big)
  end
  redis.call('HINCRBY', 'meta', 'credits', string.format('%.0f', 0 - sum))
  if l > 0 then
    close_book(book)
    append_bundle(l, 'finish', join_codes(COMMITTED, without_entry, count), decisions, terms, bodies,
      join_numbers(lb, l), join_numbers(lv, l))
  end
  fields[6] = attempt
  redis.call('HDEL', 'attempts', unpack(fields))
  redis.call('SADD', 'ended:current', attempt)
  return join_codes(FINISHED, odd, count), with_balances and join_numbers(balances, count) or ''
end

-- An attempt that is not kept: it has ended before, or its legs are lost.
local function finish_unknown(ended, verdicts)
  if ended or not string.find(verdicts, char(COMMITTED), 1, true) then
    return (string.gsub(verdicts, '.', function(verdict)
      return char(byte(verdict) == COMMITTED and FINISHED or DROPPED)
    end))
  end
  -- R5: committed, yet neither prepared nor applied. Never answered with ok.
  redis.call('HINCRBY', 'meta', 'alarms', 1)
  return char(MISSING_LEG)
end

-- Steps 3 and 4, on the payees' shard. verdicts: COMMITTED applies a leg, all else drops it.
-- args: whether balances are wanted, then for each attempt its id and the verdicts
-- -> {codes, payee balances}, a value an attempt
local function finish(_, args)
  local _, stale = enter(args[1])
  if stale then
    return stale
  end
  local with_balances, codes, balances = args[2] == '1', {}, {}
  local ids, left, places, ended_now = {}, {}, {}, {}
  for a = 3, #args, 2 do
    ids[#ids + 1] = args[a]
  end
  local heads = hmget('attempts', ids)
  for n, id in ipairs(ids) do
    if heads[n] and not ended_now[id] then
      codes[n], balances[n] = finish_attempt(id, heads[n], args[2 * n + 2], with_balances)
      ended_now[id] = true
    else
      -- Of two commits of one attempt, recovery ends both by one call.
      left[#left + 1], places[#places + 1] = id, n
    end
  end
  local before = which_ended(left)
  for i, n in ipairs(places) do
    codes[n], balances[n] = finish_unknown(ended_now[ids[n]] or before[i], args[2 * n + 2]), ''
  end
  return leave({ codes, balances })
end

---------------------------------------------------------------- recovery

-- What became of transfers whose legs are left on another shard. One with no outcome gets ABORTED as
-- its outcome, so that a late decide is refused. columns: decisions, attempt ids, terms -> {codes}
local function resolve_attempts(_, args)
  local meta, stale = enter(args[1])
  if stale then
    return stale
  end
  local oldest, newest = tonumber(args[2]), tonumber(args[3])
  local decisions, attempts, terms = unpack(cmsgpack.unpack(args[4]))
  local now = clock_ms()
  local cutoff = cutoff_ms(meta, now)
  local aborted = prefixes(now)(ABORTED)
  local found, commits = priors(meta, decisions, oldest), {}
  local fresh, done, n, odd = {}, {}, 0, {}
  local any_expired = false
  for i = 1, #decisions do
    local id, code = decisions[i], nil
    local prior = found[i] or fresh[id]
    if prior then
      code = recall_transfer(prior, terms[i], id, attempts[i], commits)
    elseif oldest < cutoff and expired(id, cutoff) then
      code, any_expired = TRANSACTION_ID_EXPIRED, true
    else
      fresh[id] = aborted .. terms[i]
      done[n + 1], done[n + 2] = id, fresh[id]
      n = n + 2
      code = ABORTED
    end
    odd[i] = code
  end
  remember(meta, done, n, newest, any_expired and cutoff)
  return leave({ every(join_codes(ABORTED, odd, #decisions), #decisions) })
end
