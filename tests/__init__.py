"""Tests: pure ones, ones against real servers, and ones that kill them."""
