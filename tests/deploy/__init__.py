"""Tests of the launcher and the command line."""
