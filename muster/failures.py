class Refused(Exception):
    """What a command was asked for may not be; the message is one line that says why, the code says it to programs."""

    def __init__(self, message: str, *, code: str = "refused") -> None:
        super().__init__(message)
        self.code = code


class CannotRun(Exception):
    """The environment, or how it was called, does not let a command do its work.

    The message is one line that says what to mend, the code says it to programs.
    """

    def __init__(self, message: str, *, code: str = "cannot_run") -> None:
        super().__init__(message)
        self.code = code
