from pydantic import ValidationError

from command_api.first_admin import administrator, creation
from command_api.handler import EmailIsTaken, Outcome
from command_api.handling import open_handler
from events import operations
from events.keyring import open_digester, open_keyring
from identity.password_rules import PasswordRefused
from identity.passwords import Passwords
from identity.security_log import record
from muster.failures import CannotRun, Refused
from muster.kek import check_kek
from muster.target import on_database
from runtime.settings import Settings

OPERATION = "admin.create"


async def create_administrator(
    settings: Settings,
    *,
    email: str,
    password: str,
    display_name: str | None,
    operator: str,
    reason: str | None = None,
) -> Outcome:
    """Make an administrator as the command API would; the event and the record of operations name the operator.

    Raises Refused, CannotRun, BadKey, and the failures of runtime.failures.
    """
    keyring, digester = open_keyring(settings), open_digester(settings)
    try:
        body = administrator(email, password, display_name)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        raise CannotRun(f"--{str(wrong['loc'][0]).replace('_', '-')}: {wrong['msg']}") from None
    await on_database(settings, lambda connection: check_kek(connection, keyring.kek))
    passwords = Passwords(settings)
    try:
        async with open_handler(
            settings, keyring=keyring, digester=digester, passwords=passwords, committed=lambda: None
        ) as handler:
            outcome = await handler.handle(creation(body, by=operator, reason=reason))
    except EmailIsTaken:
        raise Refused(f"another user has the e-mail address {body.email}", code="email_taken") from None
    except PasswordRefused as error:
        raise Refused(f"the password {error}", code="password_refused") from None
    finally:
        passwords.close()
    parameters = {"user_id": str(outcome.user.id), "position": outcome.position}
    await on_database(
        settings, lambda connection: operations.record(connection, operator, OPERATION, parameters, "done")
    )
    record("admin.created", subject=str(outcome.user.id), by=operator)
    return outcome
