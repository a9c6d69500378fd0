"""Failures that any process can meet and that say nothing about the caller's request."""


class Unavailable(Exception):
    """Something this depends on did not answer; nothing was written, so trying again is safe."""

    retry_after = 1


class Overloaded(Unavailable):
    """More is waiting already than can be served; nothing was written."""


class OutcomeUnknown(Exception):
    """The write may or may not have happened: the answer was lost on the way."""

    retry_after = 1
