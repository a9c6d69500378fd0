import ssl
from typing import Final

import httpx

# Processes of this machine are asked in the clear. Without a context of its own each request would load the system's
# certificates, which takes longer than the answer; this one trusts nobody.
PLAIN: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def unreadiness(url: str) -> str | None:
    """Ask a process whether it can serve: None, or what is wrong in its own words."""
    try:
        answer = httpx.get(f"{url}/readyz", timeout=5, trust_env=False, verify=PLAIN)
    except httpx.TransportError as error:
        return f"no answer from {url} ({error})"
    if answer.is_success:
        return None
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{url}/readyz answered {answer.status_code}"
