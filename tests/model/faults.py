"""Rules that the model can break on purpose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Faults:
    """What the model does wrong, to show that the searches and the comparisons notice."""

    # R1: a decide, post or resolve overwrites an outcome that is there.
    outcome_rewritten: bool = False
    # R3: COMMITTED is answered also after the transfer was settled.
    settled_forgotten: bool = False
    # R3: COMMITTED is answered to every attempt at a transfer that one of them committed.
    elsewhere_committed: bool = False
    # R4: an applied leg is not remembered.
    applied_forgotten: bool = False
    # R4: attempts that have ended are not remembered.
    ended_forgotten: bool = False
    # R4: they are, but a late prepare of one is carried out.
    late_prepare: bool = False
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
    # A journal's first leg is applied although its second is refused.
    half_posted: bool = False
    # The leg that was refused is not remembered.
    leg_forgotten: bool = False
    # A maximum balance ignores what is on its way.
    coming_ignored: bool = False
    # An account that has something prepared can be closed.
    closed_in_use: bool = False
    # A call that is refused for the ledger's backlog is carried out.
    backlog_ignored: bool = False
