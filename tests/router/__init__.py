"""Tests of the router: what it refuses, how it batches, and the whole contract over gRPC."""
