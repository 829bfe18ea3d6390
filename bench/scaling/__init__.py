"""What a transfer costs on more and more shards, and what a million a second would take of them."""
