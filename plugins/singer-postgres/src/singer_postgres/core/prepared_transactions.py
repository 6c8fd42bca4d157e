"""Prepared transactions as holders of locks: `pg_locks` names no session for them, and they outlast all sessions."""

from __future__ import annotations

# an expression for queries on `pg_locks l`: null if the lock has a session, or its holder has ended since
NAME_OF_HOLDER = """(
    select 'the prepared transaction ' || p.gid
    from pg_catalog.pg_prepared_xacts p
    join pg_catalog.pg_locks x on x.locktype = 'transactionid' and x.transactionid = p.transaction
    where l.pid is null and x.virtualtransaction = l.virtualtransaction
    limit 1
)"""
