"""What is sent to the endpoints of OAuth 2: a form (RFC 6749, appendix B), or the same as JSON."""

from typing import Any, Final, TypeVar, cast
from urllib.parse import parse_qsl

import orjson
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from identity.refusals import refused

FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"
MAX_FIELDS: Final = 32


class LoginForm(BaseModel):
    """`username` and `password` for the password grant, a client's id and secret for client_credentials."""

    model_config = ConfigDict(extra="ignore")

    grant_type: str = Field("password", description="password or client_credentials")
    username: str | None = Field(None, description="the e-mail address", examples=["ada@example.com"])
    password: SecretStr | None = Field(None, json_schema_extra={"format": "password"})
    client_id: str | None = None
    client_secret: SecretStr | None = Field(None, json_schema_extra={"format": "password"})
    scope: str | None = Field(None, description="names with spaces: fewer than the account could have")
    device_token: SecretStr | None = Field(
        None, description="from an earlier login on this device: others' wrong guesses then delay nothing here"
    )


class RefreshForm(BaseModel):
    model_config = ConfigDict(extra="ignore")

    grant_type: str = "refresh_token"
    refresh_token: SecretStr | None = Field(None, description="left out: the one in the cookie")


class LogoutForm(BaseModel):
    model_config = ConfigDict(extra="ignore")

    refresh_token: SecretStr | None = Field(None, description="for who has no access token any more")


Form = TypeVar("Form", bound=BaseModel)


async def read_form(request: Request, model: type[Form]) -> Form:
    """Raises a 400 or 415 problem; an empty body is an empty form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if not body:
        fields: dict[str, Any] = {}
    elif kind == FORM:
        fields = _form_fields(body)
    elif kind == JSON:
        fields = _json_fields(body)
    else:
        raise refused(
            415, "invalid_request", f"Send a form: Content-Type: {FORM}", headers={"Accept": f"{FORM}, {JSON}"}
        )
    try:
        return model(**fields)
    except ValidationError as error:
        names = sorted({str(found["loc"][0]) for found in error.errors(include_input=False, include_url=False)})
        raise refused(400, "invalid_request", f"These must be text: {', '.join(names)}") from None


def _form_fields(body: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_FIELDS, errors="strict"
        )
    except ValueError:
        raise refused(400, "invalid_request", "The body is not a form in UTF-8.") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise refused(400, "invalid_request", "A parameter is there more than once.")
    return _sent(fields)


def _json_fields(body: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise refused(400, "invalid_request", "The body is not a JSON object.")
    return _sent(cast("dict[str, Any]", fields))


def _sent(fields: dict[str, Any]) -> dict[str, Any]:
    """A parameter without a value is one that was left out (RFC 6749, section 3.2)."""
    return {name: value for name, value in fields.items() if value is not None and value != ""}


def described_form(model: type[BaseModel], *, required: bool) -> dict[str, Any]:
    """The `openapi_extra` of an endpoint that reads this form."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": required, "content": {FORM: {"schema": schema}, JSON: {"schema": schema}}}}
