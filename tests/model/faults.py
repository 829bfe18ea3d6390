"""Rules that the model of the engine can break on purpose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Faults:
    """What the model does wrong, to show that the searches and the comparisons notice."""

    # R1: a decide or post overwrites an outcome that is there.
    outcome_rewritten: bool = False
    # R3: COMMITTED is answered also after the commit was settled.
    settled_forgotten: bool = False
    # R3: COMMITTED is answered to every attempt at a transaction that one of them committed.
    elsewhere_committed: bool = False
    # R3: an abandoned attempt may still be decided.
    abandoned_decided: bool = False
    # R3: an attempt that decided some of its transactions decides the others when it is asked again.
    decided_again: bool = False
    # R4: attempts that have ended are not remembered.
    ended_forgotten: bool = False
    # R4: they are, but a late prepare of one is carried out.
    late_prepare: bool = False
    # R5: a commit is acknowledged for an attempt that was only decided or abandoned here.
    decided_acknowledged: bool = False
    # R6: one participant that has finished settles the commit for all.
    settled_by_one: bool = False
    # R8: a command that only repeats an answer is not logged.
    repetition_unlogged: bool = False
    # R9: what an earlier attempt at a transaction reserves has a later one refused.
    busy_ignored: bool = False
    # R10: the horizon of attempts is not looked at by prepare, by decide, by finish.
    prepare_horizon_ignored: bool = False
    decide_horizon_ignored: bool = False
    finish_horizon_ignored: bool = False
    # R10: it is not looked at by abandon, which records a mark then. Does no harm.
    abandon_horizon_ignored: bool = False
    # R10: transaction ids never expire.
    id_horizon_ignored: bool = False
    # The horizon of transaction ids stays behind when a slot moves.
    horizon_left_behind: bool = False
    # Outcomes of the older generation move into the target's older one, which it may forget at once.
    moved_as_old: bool = False
    # A slot moves although a leg of it is prepared, or a transaction of it is committed and not settled.
    attempts_undrained: bool = False
    commits_undrained: bool = False
    # A hold ends by its time although an attempt has pinned it.
    pin_ignored_by_expiry: bool = False
    # Another attempt captures or voids a hold that an attempt has pinned.
    pin_ignored: bool = False
    # A dropped capture leaves its hold pinned.
    pin_kept: bool = False
    # What a prepared refund adds to its purchase's sum is not counted before it is applied.
    refund_uncounted: bool = False
    # A dropped refund still counts against its purchase.
    refund_kept: bool = False
    # A captured hold can be captured again.
    hold_kept: bool = False
    # What a capture leaves of its hold stays held.
    rest_kept: bool = False
    # A hold can be captured after its time.
    expiry_ignored: bool = False
    # A prepared debit leaves the money available.
    debit_unreserved: bool = False
    # A dropped debit stays held.
    debit_kept: bool = False
    # A dropped credit is still counted as coming.
    credit_kept: bool = False
    # A transaction's legs that are not refused are applied although one is.
    half_posted: bool = False
    # The leg that was refused is not remembered.
    leg_forgotten: bool = False
    # A version that was asked for is not looked at.
    version_ignored: bool = False
    # A maximum balance ignores what is on its way.
    coming_ignored: bool = False
    # An account that has something prepared can be closed.
    closed_in_use: bool = False
    # A command that is refused for the ledger's backlog is carried out.
    backlog_ignored: bool = False
