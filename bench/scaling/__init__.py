"""What a transfer costs on more and more shards, and what a million a second would take of them."""

from bench.scaling.plan import Assumptions, Plan, make_plan

__all__ = [
    "Assumptions",
    "Plan",
    "make_plan",
]
