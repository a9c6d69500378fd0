from uuid import UUID

import uuid_utils


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): ids made later sort later, to the millisecond, so index pages fill in order."""
    return UUID(int=uuid_utils.uuid7().int)


def new_text_id() -> str:
    return str(uuid_utils.uuid7())
