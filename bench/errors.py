"""The one error of this package: the figures would not be worth printing."""

from deploy.errors import DeployError


class BenchError(DeployError):
    """A run went wrong, or what was measured is not what was meant; the text says what."""
