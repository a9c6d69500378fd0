"""Networks and origins as settings name them: several with commas between."""

from ipaddress import IPv4Network, IPv6Network, ip_network

from pydantic import HttpUrl, ValidationError

DEFAULT_PORTS = {"http": 80, "https": 443}


def listed(value: str) -> list[str]:
    return [part for raw in value.split(",") if (part := raw.strip())]


def network_of(proxy: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(proxy)
    except ValueError as error:
        raise ValueError(
            f"TRUSTED_PROXIES: {error}: write addresses or networks, such as 10.0.0.7,192.168.0.0/16"
        ) from None


def origin_of(text: str) -> str:
    """Serialise as RFC 6454, section 6.2 does: lower case, ASCII, no default port."""
    try:
        url = HttpUrl(text)
    except ValidationError:
        url = None
    if (
        url is None
        or url.path != "/"
        or "*" in str(url.host)
        or any(part is not None for part in (url.query, url.fragment, url.username, url.password))
    ):
        raise ValueError(
            f"ALLOWED_ORIGINS: {text!r} is no origin: write scheme://host[:port], such as https://app.example.com"
        )
    port = "" if url.port == DEFAULT_PORTS[url.scheme] else f":{url.port}"
    return f"{url.scheme}://{url.host}{port}"
