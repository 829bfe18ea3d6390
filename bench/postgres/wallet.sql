-- A wallet as a careful engineer writes it on PostgreSQL: one call and one transaction a transfer.
--
-- Outcomes are numbered as in the contract: 1 committed, 2 insufficient funds, 7 account not found,
-- 8 transaction id reused with other contents.

create table accounts (
  id text collate "C" primary key,
  currency text not null,
  balance bigint not null,
  minimum bigint not null,
  version bigint not null
-- Room on every page, so that a changed row stays on it and its index is left alone.
) with (fillfactor = 70);

-- Its primary key is the idempotency check.
create table transfers (
  id uuid primary key,
  payer text collate "C" not null,
  payee text collate "C" not null,
  amount bigint not null,
  outcome smallint not null,
  made_at timestamptz not null default now()
);

-- The ledger: two rows a transfer. Its key serves an account's history, and is each account's one order.
create table entries (
  account text collate "C" not null,
  version bigint not null,
  transfer uuid not null,
  delta bigint not null,
  balance bigint not null,
  made_at timestamptz not null default now(),
  primary key (account, version)
);

-- One transfer. An UPDATE takes the row's lock as SELECT ... FOR UPDATE would, and saves a statement and a
-- write for each account; the order of ids keeps two transfers from waiting for each other.
create function transfer(id_ uuid, payer_ text, payee_ text, amount_ bigint) returns smallint
language plpgsql as $$
declare
  payer_balance bigint;
  payer_version bigint;
  payer_minimum bigint;
  payee_balance bigint;
  payee_version bigint;
  outcome_ smallint := 1;
begin
  insert into transfers (id, payer, payee, amount, outcome)
    values (id_, payer_, payee_, amount_, 1) on conflict do nothing;
  if not found then
    select case when (payer, payee, amount) = (payer_, payee_, amount_) then outcome else 8 end
      into outcome_ from transfers where id = id_;
    return outcome_;
  end if;
  if payer_ collate "C" < payee_ then
    update accounts set balance = balance - amount_, version = version + 1 where id = payer_
      returning balance, version, minimum into payer_balance, payer_version, payer_minimum;
    update accounts set balance = balance + amount_, version = version + 1 where id = payee_
      returning balance, version into payee_balance, payee_version;
  else
    update accounts set balance = balance + amount_, version = version + 1 where id = payee_
      returning balance, version into payee_balance, payee_version;
    update accounts set balance = balance - amount_, version = version + 1 where id = payer_
      returning balance, version, minimum into payer_balance, payer_version, payer_minimum;
  end if;
  if payer_version is null or payee_version is null then
    outcome_ := 7;
  elsif payer_balance < payer_minimum then
    outcome_ := 2;
  end if;
  if outcome_ <> 1 then
    -- Rare, and nobody has seen it: this transaction has the locks.
    update accounts set balance = balance + amount_, version = version - 1 where id = payer_;
    update accounts set balance = balance - amount_, version = version - 1 where id = payee_;
    update transfers set outcome = outcome_ where id = id_;
    return outcome_;
  end if;
  insert into entries (account, version, transfer, delta, balance)
    values (payer_, payer_version, id_, -amount_, payer_balance),
           (payee_, payee_version, id_, amount_, payee_balance);
  return 1;
end $$;

-- Many transfers in one transaction, as sets while all goes well; one by one when any is refused or repeated.
create function transfer_batch(ids uuid[], payers text[], payees text[], amounts bigint[]) returns smallint[]
language plpgsql as $$
declare
  outcomes smallint[] := '{}';
begin
  perform from accounts where id = any (payers || payees) order by id for update;
  begin
    insert into transfers (id, payer, payee, amount, outcome)
      select i, p, q, a, 1 from unnest(ids, payers, payees, amounts) as row (i, p, q, a);
    insert into entries (account, version, transfer, delta, balance)
      select l.account,
             a.version + row_number() over one_account,
             l.transfer, l.delta,
             -- A payer below his minimum, at any moment: the whole of it is undone, and done one by one.
             case when l.delta < 0 and a.balance + sum(l.delta) over one_account < a.minimum then null
                  else a.balance + sum(l.delta) over one_account end
      from unnest(ids, payers, payees, amounts) with ordinality as row (transfer, payer, payee, amount, place)
      cross join lateral (values (row.transfer, row.payer, -row.amount, row.place),
                                 (row.transfer, row.payee, row.amount, row.place))
        as l (transfer, account, delta, place)
      left join accounts a on a.id = l.account
      window one_account as (partition by l.account order by l.place);
    update accounts a set balance = a.balance + l.change, version = a.version + l.moves
      from (select account, sum(delta) as change, count(*) as moves
            from unnest(payers || payees,
                        array(select -amount from unnest(amounts) as amount) || amounts) as leg (account, delta)
            group by account) l
      where a.id = l.account;
    return array_fill(1::smallint, array[cardinality(ids)]);
  exception when unique_violation or not_null_violation then
    for place in 1 .. cardinality(ids) loop
      outcomes := outcomes || transfer(ids[place], payers[place], payees[place], amounts[place]);
    end loop;
    return outcomes;
  end;
end $$;
