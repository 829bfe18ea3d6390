"""Measures a local cluster under load: `python -m bench`.

The rest of the repository does not import this package.
"""
