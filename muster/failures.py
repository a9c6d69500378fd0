class CannotRun(Exception):
    """The environment does not let a command do its work; the message is one line that says what to mend."""


class Refused(Exception):
    """What a command was asked for may not be; the message is one line that says why."""
