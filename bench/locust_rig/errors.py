"""The one error of this package: a test that cannot run as it was asked for."""


class RigError(Exception):
    """What is wrong, in a sentence that names the option or the part of the cluster."""
