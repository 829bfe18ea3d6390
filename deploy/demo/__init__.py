"""`make demo`, which is `python -m deploy.demo`: a real cluster, and the proof that no money got lost."""
