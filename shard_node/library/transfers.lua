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

-- Whether the attempt, of rows `first` to `last`, committed before some of the transfers that were found.
local function was_decided(found, decisions, first, last, attempt, commits)
  for i = first, last do
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

-- Credits that need a closer look, of the attempt whose arguments begin at a. -> refusals by row, sum of the small
-- ones that wait, number of the big ones
local function check_closely(meta, args, a, count)
  local decisions = args[a + 1]
  local payees, amounts = split('Bc0', args[a + 3], count), split('i8', args[a + 4], count)
  local currencies, currency = currencies_of(args[a + 5], count)
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

-- The sum of the credits of rows `first` to `last`, if each goes to an open account of its currency, without limits,
-- and stays far from 2^53; else nil. `room` is what any account may get besides what is prepared.
local function sum_of_plain(columns, first, last, room)
  local records, amounts, currencies, tail = columns.records, columns.amounts, columns.currencies, columns.tail
  local sum, balances_of = 0, struct.unpack
  for i = first, last do
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

-- What prepare reads of the attempts whose arguments begin at `starts`, as columns of them all.
local function open_credits(args, starts, counts)
  local total = sum_of(counts)
  local currencies, currency = join_currencies(args, starts, 5, counts)
  local payees = split('Bc0', join_column(args, starts, 3), total)
  return {
    records = hmget('accounts', payees),
    amounts = split('i8', join_column(args, starts, 4), total),
    currencies = currencies,
    tail = currency and '\0' .. currency,
  }
end

-- What a call prepares, until it is written: all of it at once, unless somebody must look at it before.
local function write_prepared(meta, pending)
  if #pending.fields > 0 then
    write('HSET', 'attempts', pending.fields, #pending.fields)
    meta[9] = redis.call('HINCRBY', 'meta', 'credits', string.format('%.0f', pending.sum))
    if pending.big > 0 then
      meta[5] = redis.call('HINCRBY', 'meta', 'big', pending.big)
    end
  end
  pending.fields, pending.sum, pending.big = {}, 0, 0
end

local function add_prepared(pending, args, a, head)
  local attempt, fields, n = args[a], pending.fields, #pending.fields
  fields[n + 1], fields[n + 2] = attempt, head
  fields[n + 3], fields[n + 4] = attempt .. 'd', args[a + 1]
  fields[n + 5], fields[n + 6] = attempt .. 't', args[a + 2]
  fields[n + 7], fields[n + 8] = attempt .. 'p', args[a + 3]
  fields[n + 9], fields[n + 10] = attempt .. 'a', args[a + 4]
  fields[n + 11], fields[n + 12] = attempt .. 'b', args[a + 6]
end

-- Step 1, on the payees' shard: checks credits and keeps them, not spendable.
-- args, for each attempt: id, decisions, terms, payees, amounts, currencies, bodies -> codes, a string an attempt
local function prepare(_, args)
  local meta, refused = enter_new(args[1])
  if refused then
    return refused
  end
  local now, reply, ids, starts, places = clock_ms(), {}, {}, {}, {}
  for a = 2, #args, 7 do
    ids[#ids + 1] = args[a]
  end
  local kept, ended = hmget('attempts', ids), which_ended(ids)
  for n = 1, #ids do
    if kept[n] then
      reply[n] = sub(kept[n], ATTEMPT_HEAD + 1)
    elseif ended[n] then
      -- R4: this comes from a connection that died long ago.
      reply[n] = char(ENDED)
    else
      starts[#starts + 1], places[#places + 1] = 7 * n - 5, n
    end
  end
  if #starts == 0 then
    return leave(reply)
  end
  local counts, first = counts_of(args, starts, 1), 1
  local columns = open_credits(args, starts, counts)
  local pending = { fields = {}, sum = 0, big = 0 }
  local room = MAX_MINOR - open_incoming(meta).bound
  for m, a in ipairs(starts) do
    local odd, big = {}, 0
    local sum = sum_of_plain(columns, first, first + counts[m] - 1, room - pending.sum)
    local plain = sum
    if not plain then
      -- It looks at what is prepared, and so do those behind it.
      write_prepared(meta, pending)
      odd, sum, big = check_closely(meta, args, a, counts[m])
    end
    reply[places[m]] = join_codes(PREPARED, odd, counts[m])
    if sum > 0 or big > 0 then
      add_prepared(pending, args, a, struct.pack('<I6i8I4', now, sum, big) .. reply[places[m]])
      pending.sum, pending.big = pending.sum + sum, pending.big + big
    end
    if not plain then
      write_prepared(meta, pending)
      room = MAX_MINOR - open_incoming(meta).bound
    end
    first = first + counts[m]
  end
  write_prepared(meta, pending)
  return leave(reply)
end

---------------------------------------------------------------- decide

-- What decide reads and changes, of all attempts of a call together: one call of Redis for all of them costs hardly
-- more than for one.
local function open_debits(meta, args, starts, counts)
  local total = sum_of(counts)
  local columns = { join_column(args, starts, 3), join_column(args, starts, 4), join_column(args, starts, 8) }
  local decisions, payers = split('c18', columns[1], total), split('Bc0', join_column(args, starts, 5), total)
  local currencies, currency = join_currencies(args, starts, 7, counts)
  local oldest, now = tonumber(args[2]), clock_ms()
  return {
    columns = columns, decisions = decisions, terms = split('Bc0', columns[2], total), payers = payers,
    amounts = split('i8', join_column(args, starts, 6), total), currencies = currencies, currency = currency,
    now = now, oldest = oldest, cutoff = cutoff_ms(meta, now), any_expired = false,
    found = priors(meta, decisions, oldest), commits = {}, book = open_book(payers),
    fresh = {}, done = {}, written = 0,
    total = total, without_entry = {}, balances = {}, versions = {}, entries = 0,
  }
end

-- One attempt, of rows `first` to `last`, under that name of its commit.
-- -> codes, payer balances, whether it committed any, names of other commits that have rows of it
local function decide_attempt(debits, attempt, verdicts, first, last, name, with_balances)
  local accepted = char(COMMITTED) .. name
  local decisions, terms, payers, amounts = debits.decisions, debits.terms, debits.payers, debits.amounts
  local currencies, currency = debits.currencies, debits.currency
  local found, commits, oldest, cutoff = debits.found, debits.commits, debits.oldest, debits.cutoff
  local book = debits.book
  local index, available, held, version = book.index, book.available, book.held, book.version
  local state, floor, held_in, dirty = book.state, book.floor, book.currency, book.dirty
  local fresh, done, n = debits.fresh, debits.done, debits.written
  local lb, lv, l = debits.balances, debits.versions, debits.entries
  local odd, told, elsewhere = {}, {}, {}
  local repeated = was_decided(found, decisions, first, last, attempt, commits)
  for i = first, last do
    local id, term = decisions[i], terms[i]
    local code, other
    if found[i] then
      code, other = recall_transfer(found[i], term, id, attempt, commits)
    elseif fresh[id] then
      code = sub(fresh[id], 8) == term and byte(fresh[id]) or TRANSACTION_ID_REUSED
      if code == COMMITTED then
        -- Twice in one call: the second one waits for the first.
        code, other = ELSEWHERE, sub(fresh[id], 2, 7)
      end
    elseif repeated then
      -- It was refused by this attempt for what had been decided under its id, and that is forgotten by now. An
      -- attempt that committed once must not do so again: its first commit says how its legs end.
      code = TRANSACTION_ID_REUSED
    elseif oldest < cutoff and expired(id, cutoff) then
      code, debits.any_expired = TRANSACTION_ID_EXPIRED, true
    else
      local payer, amount, own, record = index[payers[i]], amounts[i], currency or currencies[i], nil
      local left = available[payer]
      if verdicts ~= '' and byte(verdicts, i - first + 1) ~= 0 then
        code = byte(verdicts, i - first + 1)
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
        told[i - first + 1] = left
        l = l + 1
        lb[l], lv[l] = left + held[payer], now_at
      end
      fresh[id] = record
      done[n + 1], done[n + 2] = id, record
      n = n + 2
    end
    if code then
      odd[i - first + 1], debits.without_entry[i] = code, 0
      told[i - first + 1] = NO_BALANCE
      if other then
        elsewhere[other] = true
      end
    end
  end
  local committed, others = l > debits.entries, {}
  debits.written, debits.entries = n, l
  for other in pairs(elsewhere) do
    others[#others + 1] = other
  end
  local count = last - first + 1
  return join_codes(COMMITTED, odd, count), with_balances and join_numbers(told, count) or '', committed, others
end

-- Writes what a call decided. `kept`: the fields of its commits
local function close_debits(meta, debits, newest, kept)
  remember(meta, debits.done, debits.written, newest, debits.any_expired and debits.cutoff)
  local count, columns = debits.entries, debits.columns
  if count > 0 then
    close_book(debits.book)
    write('HSET', 'commits', kept, #kept)
    append_bundle(count, 'decide', join_codes(COMMITTED, debits.without_entry, debits.total), columns[1], columns[2],
      columns[3], join_numbers(debits.balances, count), join_numbers(debits.versions, count))
  end
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
-- args: oldest, newest, whether balances are wanted, settled, then for each attempt
--   id, payees' shard, verdicts, decisions, terms, payers, amounts, currencies, bodies
-- -> {codes, balances, names, names of others}, a value an attempt
local function decide(_, args)
  local meta, refused = enter_new(args[1])
  if refused then
    return refused
  end
  local with_balances, starts = args[4] == '1', {}
  for a = 6, #args, 9 do
    starts[#starts + 1] = a
  end
  local counts, first = counts_of(args, starts, 3), 1
  -- First: it only removes, and the names that are given out may not be among them.
  forget_commits(args[5])
  local debits = open_debits(meta, args, starts, counts)
  local tick = math.max(ticks(debits.now), tonumber(meta[10] or 0) + 1)
  local codes, balances, names, elsewhere, kept = {}, {}, {}, {}, {}
  for m, a in ipairs(starts) do
    local name, committed = struct.pack('<I6', tick + m - 1), nil
    codes[m], balances[m], committed, elsewhere[m] =
      decide_attempt(debits, args[a], args[a + 2], first, first + counts[m] - 1, name, with_balances)
    names[m] = committed and name or ''
    if committed then
      local n = #kept
      kept[n + 1], kept[n + 2] = name, cmsgpack.pack({ args[a], args[a + 1], codes[m], debits.now })
      kept[n + 3], kept[n + 4] = name .. 'd', args[a + 3]
      kept[n + 5], kept[n + 6] = name .. 't', args[a + 4]
      kept[n + 7], kept[n + 8] = name .. 'b', args[a + 8]
    end
    first = first + counts[m]
  end
  close_debits(meta, debits, tonumber(args[3]), kept)
  redis.call('HSET', 'meta', 'clock', string.format('%.0f', tick + #starts - 1))
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

-- Fields of an attempt in `attempts`, beside the one that is its id.
local LETTERS = { 'd', 't', 'p', 'a', 'b' }

-- What finish reads and changes, of some attempts together that are kept.
local function open_ending(ids)
  local fields, columns, counts = {}, { {}, {}, {}, {}, {} }, {}
  for _, id in ipairs(ids) do
    for _, letter in ipairs(LETTERS) do
      fields[#fields + 1] = id .. letter
    end
  end
  local values = hmget('attempts', fields)
  for m = 1, #ids do
    for c = 1, 5 do
      columns[c][m] = values[5 * m - 5 + c]
    end
    counts[m] = #columns[1][m] / DECISION
  end
  for c = 1, 5 do
    columns[c] = #ids == 1 and columns[c][1] or table.concat(columns[c])
  end
  local total = sum_of(counts)
  local payees = split('Bc0', columns[3], total)
  return {
    fields = fields, counts = counts, columns = columns, payees = payees,
    amounts = split('i8', columns[4], total), arrivals = open_arrivals(), book = open_book(payees),
    total = total, without_entry = {}, balances = {}, versions = {}, entries = 0, sum = 0, big = 0, alarms = 0,
  }
end

-- One attempt, of rows `first` to `last`. -> codes, payee balances
local function finish_attempt(ending, head, verdicts, first, last, with_balances)
  local count, kept = last - first + 1, sub(head, ATTEMPT_HEAD + 1)
  local all = kept == char(PREPARED) and verdicts == char(COMMITTED)
  if not all then
    kept, verdicts = every(kept, count), every(verdicts, count)
  end
  local payees, amounts, arrivals = ending.payees, ending.amounts, ending.arrivals
  local book, odd, balances = ending.book, {}, {}
  local index, available, held = book.index, book.available, book.held
  local version, dirty = book.version, book.dirty
  local lb, lv, l = ending.balances, ending.versions, ending.entries
  for i = first, last do
    local k, code = i - first + 1, nil
    local prepared = all or byte(kept, k) == PREPARED
    if not all and byte(verdicts, k) ~= COMMITTED then
      code = DROPPED
    elseif not prepared then
      -- R5: committed, yet it was refused here.
      code, ending.alarms = MISSING_LEG, ending.alarms + 1
    end
    if arrivals and prepared then
      arrived(arrivals, payees[i], amounts[i])
    end
    if code then
      odd[k], ending.without_entry[i], balances[k] = code, 0, NO_BALANCE
    else
      local payee = index[payees[i]]
      local has, now_at = available[payee] + amounts[i], version[payee] + 1
      available[payee], version[payee], dirty[payee] = has, now_at, true
      balances[k] = has
      l = l + 1
      lb[l], lv[l] = has + held[payee], now_at
    end
  end
  local _, sum, big = struct.unpack('<I6i8I4', head)
  ending.entries, ending.sum, ending.big = l, ending.sum + sum, ending.big + big
  return join_codes(FINISHED, odd, count), with_balances and join_numbers(balances, count) or ''
end

-- Writes what became of attempts that were kept.
local function close_ending(ending, ids)
  if ending.alarms > 0 then
    redis.call('HINCRBY', 'meta', 'alarms', ending.alarms)
  end
  if ending.arrivals then
    close_incoming(ending.arrivals)
  end
  if ending.big > 0 then
    redis.call('HINCRBY', 'meta', 'big', -ending.big)
  end
  redis.call('HINCRBY', 'meta', 'credits', string.format('%.0f', 0 - ending.sum))
  local count, columns = ending.entries, ending.columns
  if count > 0 then
    close_book(ending.book)
    append_bundle(count, 'finish', join_codes(COMMITTED, ending.without_entry, ending.total), columns[1],
      columns[2], columns[5], join_numbers(ending.balances, count), join_numbers(ending.versions, count))
  end
  local fields, n = ending.fields, #ending.fields
  for m = 1, #ids do
    fields[n + m] = ids[m]
  end
  write('HDEL', 'attempts', fields, #fields)
  write('SADD', 'ended:current', ids, #ids)
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
  local ids, kept, kept_places, left, left_places, ended_now = {}, {}, {}, {}, {}, {}
  for a = 3, #args, 2 do
    ids[#ids + 1] = args[a]
  end
  local heads = hmget('attempts', ids)
  for n, id in ipairs(ids) do
    if heads[n] and not ended_now[id] then
      kept[#kept + 1], kept_places[#kept_places + 1] = id, n
      ended_now[id] = true
    else
      -- Of two commits of one attempt, recovery ends both by one call.
      left[#left + 1], left_places[#left_places + 1] = id, n
    end
  end
  if #kept > 0 then
    local ending, first = open_ending(kept), 1
    for m, n in ipairs(kept_places) do
      local last = first + ending.counts[m] - 1
      codes[n], balances[n] = finish_attempt(ending, heads[n], args[2 * n + 2], first, last, with_balances)
      first = last + 1
    end
    close_ending(ending, kept)
  end
  local before = which_ended(left)
  for i, n in ipairs(left_places) do
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
