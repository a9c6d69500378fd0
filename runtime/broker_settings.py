"""How the brokers are reached, and the topics on them: all that needs no database."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from runtime.client_tls import client_context
from runtime.secret_values import SECRETS, SecretFile, is_placeholder, secret_in, with_files

# how a connection is made, but for where to
CONNECTION: Final = (
    "kafka_security_protocol",
    "kafka_sasl_mechanism",
    "kafka_sasl_username",
    "kafka_sasl_password",
    "kafka_ca_file",
    "kafka_certificate_file",
    "kafka_key_file",
    "kafka_key_password",
)


class BrokerSettings(BaseSettings):
    """A part of `runtime.settings.Settings`, for commands that need brokers and nothing else."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    muster_mode: Literal["production", "development", "test"] = "production"
    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str | None = Field(None, min_length=1)
    kafka_sasl_password: SecretStr | None = None
    kafka_ca_file: Path | None = Field(
        None,
        description="PEM file of the authorities that may have issued the brokers' certificates; else the machine's",
    )
    kafka_certificate_file: Path | None = Field(None, description="PEM file of this client's own, for mutual TLS")
    kafka_key_file: Path | None = Field(None, description="PEM file of that certificate's key")
    kafka_key_password: SecretStr | None = Field(None, description="what opens an encrypted key")

    events_topic: str = "users.events.v1"
    snapshot_topic: str = "users.snapshot.v1"
    checkpoints_topic: str = "users.checkpoints.v1"
    topic_partitions: int = Field(6, ge=1, le=1000, description="fixed for ever once the topics exist")
    topic_replication: int = Field(1, ge=1, le=10)
    topic_retention_hours: int = Field(168, ge=1)
    snapshot_compaction_hours: int = Field(
        24, ge=1, description="how long the snapshot topic may keep what a later record or tombstone replaces"
    )
    projector_group: str = "muster-projector"
    schemas_url: str = Field(
        "http://127.0.0.1:8002/schemas",
        pattern=r"^https?://[!-~]{1,500}$",
        description="where subscribers reach the query API's /schemas: each event names its schema there"
        " (ce_dataschema)",
    )

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

    @field_validator(*SECRETS, mode="before", check_fields=False)
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

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if wrong := list(self._at_odds()):
            raise ValueError("; ".join(wrong))
        return self

    @property
    def has_tls(self) -> bool:
        return self.kafka_security_protocol in {"SSL", "SASL_SSL"}

    @property
    def has_sasl(self) -> bool:
        return self.kafka_security_protocol in {"SASL_PLAINTEXT", "SASL_SSL"}

    @property
    def may_be_refused(self) -> bool:
        """Whether brokers know who asks, and so may have rules about it."""
        return self.has_sasl or self.kafka_certificate_file is not None

    def tls_context(self) -> ssl.SSLContext:
        """Made of the files as they are now. Raises ValueError."""
        password = self.kafka_key_password
        return client_context(
            authorities=self.kafka_ca_file,
            certificate=self.kafka_certificate_file,
            key=self.kafka_key_file,
            key_password=None if password is None else password.get_secret_value(),
        )

    @classmethod
    def unsecured(cls) -> dict[str, Any]:
        """What says that a connection has neither TLS nor a login, whatever else was said."""
        return {name: cls.model_fields[name].default for name in CONNECTION}

    def _at_odds(self) -> Iterator[str]:
        """Say of each what to mend."""
        yield from self._sasl_at_odds()
        yield from self._tls_at_odds()

    def _sasl_at_odds(self) -> Iterator[str]:
        protocol, password = self.kafka_security_protocol, self.kafka_sasl_password
        if not self.has_sasl:
            if self.kafka_sasl_username is not None or password is not None:
                yield (
                    f"KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD are for SASL, and KAFKA_SECURITY_PROTOCOL is"
                    f" {protocol}: set it to SASL_SSL, or unset them"
                )
            return
        if self.kafka_sasl_username is None or password is None:
            yield (
                f"KAFKA_SECURITY_PROTOCOL={protocol} needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD (or its _FILE):"
                " set both"
            )
        if self.muster_mode != "production":
            return
        if protocol == "SASL_PLAINTEXT" and self.kafka_sasl_mechanism == "PLAIN":
            yield (
                "KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT with KAFKA_SASL_MECHANISM=PLAIN would send the password in the"
                " clear, which production refuses: use SASL_SSL"
            )
        if password is not None and is_placeholder(password.get_secret_value()):
            yield "KAFKA_SASL_PASSWORD is a placeholder, which production refuses: give the principal one of its own"

    def _tls_at_odds(self) -> Iterator[str]:
        files = {
            "KAFKA_CA_FILE": self.kafka_ca_file,
            "KAFKA_CERTIFICATE_FILE": self.kafka_certificate_file,
            "KAFKA_KEY_FILE": self.kafka_key_file,
            "KAFKA_KEY_PASSWORD": self.kafka_key_password,
        }
        if not self.has_tls:
            if told := [variable for variable, value in files.items() if value is not None]:
                yield (
                    f"{', '.join(told)}: for TLS, and KAFKA_SECURITY_PROTOCOL is {self.kafka_security_protocol}:"
                    " set it to SSL or SASL_SSL, or unset the rest"
                )
            return
        if (self.kafka_certificate_file is None) != (self.kafka_key_file is None):
            yield "KAFKA_CERTIFICATE_FILE and KAFKA_KEY_FILE go together: set both or none"
        elif self.kafka_key_password is not None and self.kafka_key_file is None:
            yield "KAFKA_KEY_PASSWORD is for KAFKA_KEY_FILE: set that too, or unset it"
        else:
            try:
                self.tls_context()
            except ValueError as error:
                yield str(error)
