"""The one error of this package: the figures would not be worth printing."""


class BenchError(Exception):
    """A run went wrong, or what was measured is not what was meant; the text says what."""
