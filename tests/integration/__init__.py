"""Tests of a whole cluster while its parts die."""
