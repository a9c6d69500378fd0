import sys
from typing import Final

import typer

from muster import answers
from muster.commands import (
    admin,
    clients,
    deployment,
    erasure,
    files,
    keys,
    parked,
    proofs,
    rebuild,
    stack,
    topics,
    verify,
)

app = typer.Typer(
    help="Operate Muster. Without settings of its own a command finds the development stack in MUSTER_HOME.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
GROUPS: Final = {
    "admin": admin.app,
    "clients": clients.app,
    "keys": keys.app,
    "parked": parked.app,
    "proofs": proofs.group,
    "rebuild": rebuild.app,
    "verify": verify.app,
}
for commands in (stack.app, deployment.app, files.app, topics.app, erasure.app, proofs.app):
    app.add_typer(commands)
for name, group in GROUPS.items():
    app.add_typer(group, name=name, rich_help_panel=deployment.PANEL)


def main() -> None:
    """Run one command: exits with 0 for success, 1 for a finding, 2 when it was called or set up wrongly."""
    raise SystemExit(answers.run(app, sys.argv[1:]))
