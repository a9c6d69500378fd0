import os
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, TypeVar

from pydantic import Field, HttpUrl, SecretStr, ValidationError, field_validator

from runtime.broker_settings import BrokerSettings
from runtime.places import listed, network_of, origin_of
from runtime.secret_values import database_password, is_placeholder

Told = TypeVar("Told", bound=BrokerSettings)

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


class BadSettings(Exception):
    """The environment does not describe a process that can run."""


class Settings(BrokerSettings):
    """What a process is told from outside, read once in its `__main__` and passed in.

    Each field, and each of BrokerSettings, is the environment variable of the same name in capitals; a secret may be in
    a file instead, which the variable with _FILE names. Times are in seconds.
    """

    database_url: SecretStr = Field(description="postgresql://user:password@host:port/database")

    kek: SecretStr | None = Field(None, description="the key-encryption key: 32 bytes in base64")
    keks_known: SecretStr | None = Field(
        None, description="other KEKs, with commas or on lines of their own: keys that they wrapped are opened too"
    )
    email_index_key: SecretStr | None = Field(None, description="the e-mail index key: 32 bytes in base64")
    email_index_keys_known: SecretStr | None = Field(
        None, description="other e-mail index keys, likewise: what was made with them counts too"
    )

    first_admin_email: str | None = Field(None, description="an administrator to make when there is no user yet")
    first_admin_password: SecretStr | None = None

    host: str = "127.0.0.1"
    command_port: int = Field(8001, ge=0, le=65535)
    query_port: int = Field(8002, ge=0, le=65535)
    projector_port: int = Field(8003, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    fetch_pause: float = Field(
        0.0,
        ge=0,
        le=1,
        description="rest between empty fetches, for a broker that answers them at once instead of holding them",
    )
    event_source: str = Field("/muster/users", description="the CloudEvents source attribute")
    projector_instance: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="a name of this projector's own that it keeps when restarted (Kafka static membership): it then"
        " has its partitions back at once, without the group waiting for the one that died",
    )
    stuck_after: float = Field(
        15.0, gt=0, description="a projector's consumer that does not move for so long, though it should, is made anew"
    )
    parked_limit: int = Field(
        100, ge=1, description="events that may be set aside as unreadable; above it, something else is wrong: all stop"
    )
    relay: bool = Field(
        True, description="whether the command API stands for election as the relay, and to sign checkpoints"
    )

    log_origin: str | None = Field(
        None,
        pattern=r"^[!-*,-~]{1,200}$",
        description="what checkpoints are known by, once and for ever: muster/ and a random name if it is not said",
    )

    write_timeout: float = Field(5.0, gt=0, description="bound on a write's answer once its body has arrived")
    write_queue_limit: int = Field(2000, ge=1, description="commands that may wait; above it, 503 at once")
    read_timeout: float = Field(5.0, gt=0)
    max_wait: float = Field(30.0, ge=0, description="the longest `Prefer: wait=N` that is honoured")
    listener_timeout: float = Field(
        20.0, gt=0, description="how long a listener to /events may take nothing of what is sent before it is cut off"
    )
    shutdown_timeout: int = Field(25, ge=1, description="how long accepted requests may take after SIGTERM")
    idempotency_ttl: int = Field(86400, ge=60)

    erase_deleted_after: int = Field(
        30 * 86400, ge=0, description="how long after their deletion users are erased by themselves; 0 or empty: never"
    )
    backup_retention_days: int = Field(
        30, ge=0, description="how long backups and archived WAL are kept: receipts of erasures state it"
    )

    password_min_length: int = Field(8, ge=8, le=64)
    argon2_memory_kib: int = Field(19456, ge=8, le=262_144)
    argon2_time_cost: int = Field(2, ge=1, le=16)
    argon2_parallelism: int = Field(1, ge=1, le=16)
    hashing_threads: int = Field(
        # a flood of logins leaves one core to whoever asks for something else
        default_factory=lambda: max(1, (os.cpu_count() or 1) - 1),
        ge=1,
        description="by default one fewer than there are cores",
    )
    hashing_queue_limit: int = Field(64, ge=1, description="passwords that may wait to be hashed")

    # ASCII: what is escaped would make tokens longer than any is taken with
    token_issuer: str = Field("urn:muster", pattern=r"^[!-~]{1,200}$", description="`iss` of access tokens")
    token_audience: str = Field("urn:muster:users", pattern=r"^[!-~]{1,200}$", description="`aud` of access tokens")
    access_token_ttl: int = Field(
        600,
        ge=30,
        le=86400,
        description="every instance keeps revocations in memory this long: all must have the same",
    )
    session_ttl: int = Field(30 * 86400, ge=3600, le=90 * 86400, description="a session ends then, however often used")
    refresh_grace: float = Field(
        10.0, ge=0, le=60, description="how long a refresh token that was used is answered alike"
    )
    guesses_per_account: int = Field(
        5,
        ge=1,
        le=100,
        description="wrong passwords for one account from one address before each costs a growing delay",
    )
    guesses_per_address: int = Field(20, ge=1, le=1_000_000, description="likewise, for whatever accounts")
    trusted_proxies: str = Field(
        "", description="addresses or networks, with commas, whose X-Forwarded-For tells where a request comes from"
    )
    allowed_origins: str = Field(
        "", description="other origins whose pages may log in, with commas: https://app.example.com"
    )
    login_url: str = Field("/login", description="where the Authorize button of /docs logs in")

    failpoints: str = Field("", description="point=kill|pause|hang,...; tests only (runtime.failpoints)")

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks of `trusted_proxies`; an address is a network of one."""
        return tuple(network_of(proxy) for proxy in listed(self.trusted_proxies))

    @property
    def origins(self) -> frozenset[str]:
        """The `allowed_origins`, each as a browser writes it in an Origin header."""
        return frozenset(origin_of(origin) for origin in listed(self.allowed_origins))

    @field_validator("erase_deleted_after", mode="before")
    @classmethod
    def _never_erase(cls, value: object) -> object:
        return 0 if value == "" else value

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr) -> SecretStr:
        database_password(value)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_trusted_proxies(cls, value: str) -> str:
        for proxy in listed(value):
            network_of(proxy)
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _check_allowed_origins(cls, value: str) -> str:
        for origin in listed(value):
            origin_of(origin)
        return value

    def _at_odds(self) -> Iterator[str]:
        if self.failpoints and self.muster_mode != "test":
            yield "FAILPOINTS is for MUSTER_MODE=test only: unset it"
        if (self.first_admin_email is None) != (self.first_admin_password is None):
            yield "FIRST_ADMIN_EMAIL and FIRST_ADMIN_PASSWORD (or its _FILE) go together: set both or none"
        if self.muster_mode == "production":
            yield from self._unfit_for_production()
        yield from super()._at_odds()

    def _unfit_for_production(self) -> Iterator[str]:
        """Say what to mend. The keys are looked at by who decodes them: events.keyring."""
        password = database_password(self.database_url)
        if password is not None and is_placeholder(password):
            yield (
                "DATABASE_URL holds a placeholder, which production refuses: give its login a random password"
                " (openssl rand -hex 32)"
            )
        if self.first_admin_password is not None and is_placeholder(self.first_admin_password.get_secret_value()):
            yield "FIRST_ADMIN_PASSWORD is a placeholder, which production refuses: choose one of your own"
        for origin in sorted(self.origins):
            url = HttpUrl(origin)
            if url.scheme == "http" and url.host not in LOOPBACK:
                yield f"ALLOWED_ORIGINS: {origin} is not safe in production: serve it over https"


def settings_from_environment(**overrides: object) -> Settings:
    """Read the settings of this process; `overrides` win over the environment.

    Raises BadSettings with one line that names each thing to mend, and no secret.
    """
    return _read(Settings, overrides)


def broker_settings_from_environment(**overrides: object) -> BrokerSettings:
    """As `settings_from_environment`, of the brokers alone: for what needs no database."""
    return _read(BrokerSettings, overrides)


def _read(kind: type[Told], overrides: Mapping[str, object]) -> Told:
    try:
        return kind(**overrides)  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise BadSettings("; ".join(_sentence(one["loc"], one["msg"]) for one in found)) from None


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    variable = ".".join(str(part) for part in location).upper()
    message = message.removeprefix("Value error, ")
    return message if message.startswith(variable) else f"{variable}: {message}"
