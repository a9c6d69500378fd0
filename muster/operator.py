import getpass
import os
import socket
from typing import Annotated

import typer

OperatorOption = Annotated[
    str | None, typer.Option("--operator", help="Who does this, for the record.", show_default="USER@HOST")
]


def operator_named(option: str | None) -> str:
    """Who an operation is recorded as: what was said, else the login at this machine."""
    if option is not None:
        return option
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # a container's user need not have a name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
