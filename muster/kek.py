from events.keyring import Kek
from muster.failures import CannotRun
from runtime.database import Connection

IN_USE = """
SELECT DISTINCT kek_id FROM identity.signing_keys WHERE verifies_until IS NULL OR verifies_until > now()
"""


async def check_kek(connection: Connection, kek: Kek) -> None:
    """Raises CannotRun for another key than the deployment's: what it wrapped, no process could open."""
    cursor = await connection.execute(IN_USE)
    used = {str(row["kek_id"]) for row in await cursor.fetchall()}
    if used and kek.id not in used:
        raise CannotRun(
            f"this KEK is {kek.id}, and the deployment's is {', '.join(sorted(used))}:"
            " set KEK or KEK_FILE to the one that the command API has",
            code="wrong_key",
        )
