"""Tests of the measurement itself: its figures must not be able to lie."""
