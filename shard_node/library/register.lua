---------------------------------------------------------------- binding and registration

-- Binds this Redis to a shard and raises its epoch. args: cluster/shard, epoch, window in ms,
-- how many ledger entries may wait to be archived.
local function setup(_, args)
  local meta = redis.call('HMGET', 'meta', 'shard', 'epoch')
  if meta[1] and meta[1] ~= args[1] then
    return redis.error_reply('WRONG_SHARD this Redis holds ' .. meta[1])
  end
  if meta[2] and tonumber(meta[2]) > tonumber(args[2]) then
    return redis.error_reply('STALE_EPOCH the shard is at epoch ' .. meta[2])
  end
  redis.call('HSET', 'meta', 'shard', args[1], 'epoch', args[2], 'fence', args[1] .. '/' .. args[2],
    'window', args[3], 'backlog_limit', args[4])
  return redis.status_reply('OK')
end

-- A full shard must be able to start.
redis.register_function{ function_name = 'setup', callback = setup, flags = { 'allow-oom' } }
redis.register_function('open', open)
redis.register_function{ function_name = 'accounts', callback = accounts, flags = { 'no-writes' } }
redis.register_function{ function_name = 'account_names', callback = account_names, flags = { 'no-writes' } }
redis.register_function{ function_name = 'outcome', callback = outcome, flags = { 'no-writes' } }
redis.register_function{ function_name = 'snapshot', callback = snapshot, flags = { 'no-writes' } }
redis.register_function('set_state', set_state)
redis.register_function('post', post)
redis.register_function('prepare', prepare)
redis.register_function('decide', decide)
-- What is in flight may always land, also when memory is full.
redis.register_function{ function_name = 'finish', callback = finish, flags = { 'allow-oom' } }
redis.register_function('post_journals', post_journals)
redis.register_function('prepare_legs', prepare_legs)
redis.register_function('decide_journals', decide_journals)
redis.register_function{ function_name = 'finish_legs', callback = finish_legs, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'check', callback = check, flags = { 'no-writes' } }
redis.register_function{ function_name = 'expire', callback = expire, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'archived', callback = archived, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'settle_commits', callback = settle_commits, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'resolve_attempts', callback = resolve_attempts, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'settle', callback = settle, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'resolve', callback = resolve, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'rotate', callback = rotate, flags = { 'allow-oom' } }
