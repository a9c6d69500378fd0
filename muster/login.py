from http import HTTPStatus

import httpx

from muster.failures import CannotRun


class LoginFailed(CannotRun):
    """The command API gave no token; the message says why."""


class WrongPassword(LoginFailed):
    """No living, active user has this e-mail address and password."""


def log_in(command_url: str, email: str, password: str) -> str:
    """Give an access token of the user's; raises LoginFailed."""
    try:
        answer = httpx.post(
            f"{command_url}/login", data={"username": email, "password": password}, timeout=30, trust_env=False
        )
        if answer.is_success:
            return str(answer.json()["access_token"])
        detail = str(answer.json()["detail"])
    except httpx.TransportError as error:
        raise LoginFailed(f"no answer from {command_url} ({error})") from None
    except (ValueError, KeyError, TypeError):
        raise LoginFailed(f"{command_url}/login gave no answer of the command API") from None
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        raise WrongPassword(detail)
    raise LoginFailed(detail)
