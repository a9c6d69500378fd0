from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class BadSettings(Exception):
    """The environment does not describe a process that can run."""


class Settings(BaseSettings):
    """What a process is told from outside, read once in its `__main__` and passed in.

    Each field is the environment variable of the same name in capitals. Times are in seconds.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    muster_mode: Literal["production", "development", "test"] = "production"
    database_url: SecretStr = Field(description="postgresql://user:password@host:port/database")
    kafka_bootstrap_servers: str = "127.0.0.1:9092"

    kek_file: Path | None = Field(None, description="the key-encryption key: 32 bytes in base64")
    email_index_key_file: Path | None = Field(None, description="the e-mail index key: 32 bytes in base64")
    development_token: SecretStr | None = None

    host: str = "127.0.0.1"
    command_port: int = Field(8001, ge=0, le=65535)
    query_port: int = Field(8002, ge=0, le=65535)
    projector_port: int = Field(8003, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    events_topic: str = "users.events.v1"
    snapshot_topic: str = "users.snapshot.v1"
    topic_partitions: int = Field(6, ge=1, le=1000, description="fixed for ever once the topics exist")
    topic_replication: int = Field(1, ge=1, le=10)
    topic_retention_hours: int = Field(168, ge=1)
    fetch_pause: float = Field(
        0.0,
        ge=0,
        le=1,
        description="rest between empty fetches, for a broker that answers them at once instead of holding them",
    )
    event_source: str = Field("/muster/users", description="the CloudEvents source attribute")
    projector_group: str = "muster-projector"
    projector_instance: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="a name of this projector's own that it keeps when restarted (Kafka static membership): it then"
        " has its partitions back at once, without the group waiting for the one that died",
    )
    relay: bool = Field(True, description="whether the command API stands for election as the relay")

    write_timeout: float = Field(5.0, gt=0, description="bound on a write's answer once its body has arrived")
    write_queue_limit: int = Field(2000, ge=1, description="commands that may wait; above it, 503 at once")
    read_timeout: float = Field(5.0, gt=0)
    max_wait: float = Field(30.0, ge=0, description="the longest `Prefer: wait=N` that is honoured")
    shutdown_timeout: int = Field(25, ge=1, description="how long accepted requests may take after SIGTERM")
    idempotency_ttl: int = Field(86400, ge=60)

    password_min_length: int = Field(8, ge=8, le=64)
    argon2_memory_kib: int = Field(19456, ge=8)
    argon2_time_cost: int = Field(2, ge=1)
    argon2_parallelism: int = Field(1, ge=1)
    hashing_threads: int = Field(2, ge=1)
    hashing_queue_limit: int = Field(64, ge=1, description="passwords that may wait to be hashed")

    failpoints: str = Field("", description="point=kill|pause,...; tests only (runtime.failpoints)")

    @model_validator(mode="after")
    def _guard_production(self) -> Self:
        if self.failpoints and self.muster_mode != "test":
            raise ValueError("FAILPOINTS is for MUSTER_MODE=test only: unset it")
        if self.development_token is not None and self.muster_mode == "production":
            raise ValueError("DEVELOPMENT_TOKEN is refused in production: unset it, or set MUSTER_MODE=development")
        return self


def settings_from_environment(**overrides: object) -> Settings:
    """Read the settings of this process; `overrides` win over the environment.

    Raises BadSettings with one line for each thing to mend.
    """
    try:
        return Settings(**overrides)  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in found['loc']).upper() or 'settings'}: {found['msg']}"
            for found in error.errors(include_url=False, include_input=False)
        ]
        raise BadSettings("; ".join(lines)) from None
