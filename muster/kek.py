from typing import Final

from events.fitting import keks_in_use
from events.keks import Keks
from muster.failures import CannotRun
from runtime.database import Connection

SIGNERS: Final = """
SELECT DISTINCT kek_id FROM identity.signing_keys WHERE verifies_until IS NULL OR verifies_until > now()
"""


async def check_kek(connection: Connection, keks: Keks) -> None:
    """Raises CannotRun when the deployment has keys of a KEK that is not known here: nor may it know this one."""
    cursor = await connection.execute(SIGNERS)
    used = {str(row["kek_id"]) for row in await cursor.fetchall()} | await keks_in_use(connection)
    if unknown := used - keks.ids:
        raise CannotRun(keks.lack(unknown), code="wrong_key")
