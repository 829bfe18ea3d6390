"""The wallet's gRPC service: validates, hashes, splits, gathers; keeps no state."""
