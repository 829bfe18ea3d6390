---------------------------------------------------------------- the archive

-- Everything up to and with `stream id` is stored: forgets it, and keeps the head of the archive's chain,
-- by which an audit finds that its last batches were cut off. Again, or late, it does nothing.
-- args: fence, stream id, number of the batch, its hash, how many ledger entries it stands for
local function archived(_, args)
  local _, stale = enter(args[1])
  if stale then
    return stale
  end
  local number = tonumber(redis.call('HGET', 'meta', 'archived_number') or 0)
  if tonumber(args[3]) > number then
    local ms, sequence = string.match(args[2], '^(%d+)-(%d+)$')
    -- MINID keeps the id it is given; ids have fewer digits than a double holds exactly.
    redis.call('XTRIM', 'ledger', 'MINID', ms .. '-' .. string.format('%.0f', tonumber(sequence) + 1))
    redis.call('HSET', 'meta', 'archived_number', args[3], 'archived_head', args[4], 'archived_id', args[2])
    redis.call('HINCRBY', 'meta', 'backlog', string.format('%.0f', 0 - tonumber(args[5])))
  end
  return redis.status_reply('OK')
end
