from dataclasses import replace
from typing import Final

from muster.embedded.postgres import EmbeddedPostgres
from muster.embedded.program import Program

# as the PostgreSQL manual advises for a server of a few GB of its own (Resource Consumption; WAL Configuration): a
# development stack is content with less than its tables take
SIZES: Final = {
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
}


class SizedPostgres(EmbeddedPostgres):
    """The embedded server with as much memory and log as a deployment would give it; all that is measured shares it."""

    def program(self) -> Program:
        program = super().program()
        further = [word for name, value in SIZES.items() for word in ("-c", f"{name}={value}")]
        return replace(program, command=[*program.command, *further])
