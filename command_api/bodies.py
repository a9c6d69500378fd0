import re
import unicodedata
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

import orjson
from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from command_api.decide import MAX_ATTRIBUTES
from events.record import EXAMPLE, UserRecord
from events.user import Status
from runtime.fleeting import Fleeting

MAX_DEPTH: Final = 32
# Unicode's control characters, line and paragraph separators; formatting ones stay, since scripts need them
FORBIDDEN: Final = frozenset({"Cc", "Zl", "Zp"})
INVISIBLE: Final = FORBIDDEN | {"Cf", "Zs"}
NUL: Final = "\x00"


# dot-atoms of RFC 5321 before the @: what is wrong with such an address, if anything, is its domain or a length
PLAIN_LOCAL: Final = re.compile(r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+)*")
LONGEST_LOCAL: Final = 64
LONGEST_EMAIL: Final = 254
# validating an address takes a tenth of a whole request, nearly all of it for the domain; most users share few
_GOOD_DOMAINS: Final[Fleeting[str, bool]] = Fleeting(capacity=4096)


def _check_email(email: str) -> str:
    email = email.strip()
    local, _, domain = email.rpartition("@")
    plain = len(local) <= LONGEST_LOCAL and domain.isascii() and PLAIN_LOCAL.fullmatch(local) is not None
    if plain and len(email) <= LONGEST_EMAIL and _GOOD_DOMAINS.get(domain):
        return email
    try:
        validate_email(email, check_deliverability=False)
    except EmailNotValidError as error:
        raise PydanticCustomError("email", "{reason}", {"reason": str(error)}) from None
    if plain:
        _GOOD_DOMAINS.put(domain, True)
    return email


def _check_name(name: str) -> str:
    categories = {unicodedata.category(character) for character in name}
    if categories & FORBIDDEN or not categories - INVISIBLE:
        raise PydanticCustomError("display_name", "must have a visible character and no control characters")
    return name


def _check_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    if _depth_or_nul(attributes, 1) > MAX_DEPTH:
        raise PydanticCustomError("too_deep", "must not nest deeper than {depth} levels", {"depth": MAX_DEPTH})
    if len(orjson.dumps(attributes)) > MAX_ATTRIBUTES:
        raise PydanticCustomError("too_large", "must have at most {size} bytes as JSON", {"size": MAX_ATTRIBUTES})
    return attributes


def _depth_or_nul(value: Any, depth: int) -> int:  # noqa: ANN401 - a JSON value
    """The depth of a JSON value; raises at a NUL character, which Postgres stores in no text."""
    if depth > MAX_DEPTH:
        return depth
    match value:
        case str():
            if NUL in value:
                raise PydanticCustomError("nul", "must not contain the character U+0000")
            return depth
        case dict():
            parts: list[Any] = [*value, *value.values()]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list():
            parts = value  # pyright: ignore[reportUnknownVariableType]
        case _:
            return depth
    return max((_depth_or_nul(part, depth + 1) for part in parts), default=depth)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _refuse_null(value: Any) -> Any:  # noqa: ANN401 - whatever was sent
    if value is None:
        raise PydanticCustomError("not_removable", "cannot be removed: leave it out to keep it as it is")
    return value


Email = Annotated[
    str,
    Field(max_length=LONGEST_EMAIL, examples=["ada@example.com"], json_schema_extra={"format": "email"}),
    AfterValidator(_check_email),
]
DisplayName = Annotated[str, Field(min_length=1, max_length=200, examples=["Ada"]), AfterValidator(_check_name)]
Role = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$", examples=["user"])]
Roles = Annotated[list[Role], Field(max_length=32), AfterValidator(lambda roles: sorted(set(roles)))]
Attributes = Annotated[
    dict[str, Any],
    Field(description="a free JSON object of at most 8 KiB", examples=[{"team": "engines"}]),
    AfterValidator(_check_attributes),
]
Password = Annotated[SecretStr, Field(description="stored only as an argon2id hash, never in the log or on Kafka")]


PasswordHash = Annotated[
    SecretStr,
    Field(
        description="instead of a password, for users that come from elsewhere: an argon2, bcrypt or scrypt hash as a"
        " PHC or modular crypt string; it is replaced by an argon2id one when the user first logs in",
        examples=["$2b$12$..."],
    ),
]


def _not_both(body: "CreateUserBody | ChangeUserBody") -> None:
    if body.password is not None and body.password_hash is not None:
        raise PydanticCustomError("password_twice", "send password or password_hash, not both")


class CreateUserBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "email": "ada@example.com",
                    "display_name": "Ada",
                    "roles": ["user"],
                    "attributes": {"team": "engines"},
                    "password": "a long phrase of her own",
                }
            ]
        },
    )

    email: Email
    display_name: DisplayName | None = None
    status: Status = Status.ACTIVE
    roles: Roles = Field(default_factory=lambda: ["user"])
    attributes: Attributes = Field(default_factory=dict)
    password: Password | None = None
    password_hash: PasswordHash | None = None

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        _not_both(self)
        return self


class ChangeUserBody(BaseModel):
    """Fields left out stay as they are; null clears display_name, roles and attributes."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"display_name": "Ada Lovelace", "attributes": {"team": "engines"}}]},
    )

    email: Annotated[Email | None, BeforeValidator(_refuse_null)] = None
    display_name: DisplayName | None = None
    status: Annotated[Status | None, BeforeValidator(_refuse_null)] = None
    roles: Roles | None = None
    attributes: Attributes | None = None
    password: Annotated[Password | None, BeforeValidator(_refuse_null)] = None
    password_hash: Annotated[PasswordHash | None, BeforeValidator(_refuse_null)] = None

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        _not_both(self)
        return self


class ChangeMeBody(BaseModel):
    """One's own record. A new password needs the current one; roles and status are others' to change."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"display_name": "Ada Lovelace"}]})

    email: Annotated[Email | None, BeforeValidator(_refuse_null)] = None
    display_name: DisplayName | None = None
    attributes: Attributes | None = None
    password: Annotated[Password | None, BeforeValidator(_refuse_null)] = None
    current_password: Annotated[SecretStr | None, Field(description="goes with password")] = None
    # known, so that whoever tries is told that they may not, rather than that there is no such field
    roles: SkipJsonSchema[Any] = None
    status: SkipJsonSchema[Any] = None

    @model_validator(mode="after")
    def _current_password(self) -> Self:
        if self.password is not None and self.current_password is None:
            raise PydanticCustomError("current_password_missing", "send current_password to change the password")
        return self


class Written(UserRecord):
    """The record after the write."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**EXAMPLE, "changed": ["display_name"]}]})

    changed: list[str] = Field(description="the fields that this request changed; empty: nothing was to be changed")


class Deleted(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "message": "User deleted successfully",
                    "id": EXAMPLE["id"],
                    "version": 3,
                    "deleted_at": "2026-03-03T08:15:00.000000Z",
                }
            ]
        }
    )

    message: Literal["User deleted successfully"]
    id: UUID
    version: int
    deleted_at: datetime
