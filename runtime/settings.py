import os
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, Self

from pydantic import Field, HttpUrl, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from runtime.places import listed, network_of, origin_of
from runtime.secret_values import SECRETS, SecretFile, database_password, is_placeholder, secret_in, with_files

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


class BadSettings(Exception):
    """The environment does not describe a process that can run."""


class Settings(BaseSettings):
    """What a process is told from outside, read once in its `__main__` and passed in.

    Each field is the environment variable of the same name in capitals; a secret may be in a file instead, which
    the variable with _FILE names. Times are in seconds.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    muster_mode: Literal["production", "development", "test"] = "production"
    database_url: SecretStr = Field(description="postgresql://user:password@host:port/database")
    kafka_bootstrap_servers: str = "127.0.0.1:9092"

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

    events_topic: str = "users.events.v1"
    snapshot_topic: str = "users.snapshot.v1"
    checkpoints_topic: str = "users.checkpoints.v1"
    topic_partitions: int = Field(6, ge=1, le=1000, description="fixed for ever once the topics exist")
    topic_replication: int = Field(1, ge=1, le=10)
    topic_retention_hours: int = Field(168, ge=1)
    snapshot_compaction_hours: int = Field(
        24, ge=1, description="how long the snapshot topic may keep what a later record or tombstone replaces"
    )
    fetch_pause: float = Field(
        0.0,
        ge=0,
        le=1,
        description="rest between empty fetches, for a broker that answers them at once instead of holding them",
    )
    event_source: str = Field("/muster/users", description="the CloudEvents source attribute")
    schemas_url: str = Field(
        "http://127.0.0.1:8002/schemas",
        pattern=r"^https?://[!-~]{1,500}$",
        description="where subscribers reach the query API's /schemas: each event names its schema there"
        " (ce_dataschema)",
    )
    projector_group: str = "muster-projector"
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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings names its arguments
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what the caller says, then the environment: NAME_FILE from the one overrides NAME from the other."""
        variables = {name.lower(): value for name, value in os.environ.items()}
        files = {name: variables[name] for secret in SECRETS if (name := f"{secret}_file") in variables}
        return (
            InitSettingsSource(settings_cls, with_files(init_settings())),
            InitSettingsSource(settings_cls, with_files(env_settings() | files)),
        )

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks of `trusted_proxies`; an address is a network of one."""
        return tuple(network_of(proxy) for proxy in listed(self.trusted_proxies))

    @property
    def origins(self) -> frozenset[str]:
        """The `allowed_origins`, each as a browser writes it in an Origin header."""
        return frozenset(origin_of(origin) for origin in listed(self.allowed_origins))

    @field_validator(*SECRETS, mode="before")
    @classmethod
    def _read_secret(cls, value: object, info: ValidationInfo) -> object:
        variable = str(info.field_name).upper()
        if isinstance(value, SecretFile):
            if value.beside_value:
                raise ValueError(f"{variable} and {variable}_FILE are both set: unset one")
            try:
                return secret_in(value.path)
            except ValueError as error:
                raise ValueError(f"{variable}_FILE: {error}") from None
        if value == "":
            raise ValueError(f"{variable} is empty: set it or {variable}_FILE, or unset it")
        return value

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

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        wrong: list[str] = []
        if self.failpoints and self.muster_mode != "test":
            wrong.append("FAILPOINTS is for MUSTER_MODE=test only: unset it")
        if (self.first_admin_email is None) != (self.first_admin_password is None):
            wrong.append("FIRST_ADMIN_EMAIL and FIRST_ADMIN_PASSWORD (or its _FILE) go together: set both or none")
        if self.muster_mode == "production":
            wrong += self._unfit_for_production()
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

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
    try:
        return Settings(**overrides)  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise BadSettings("; ".join(_sentence(one["loc"], one["msg"]) for one in found)) from None


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    variable = ".".join(str(part) for part in location).upper()
    message = message.removeprefix("Value error, ")
    return message if message.startswith(variable) else f"{variable}: {message}"
