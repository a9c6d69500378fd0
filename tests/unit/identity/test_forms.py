import asyncio
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from fastapi import Request
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.types import Message

from identity.forms import FORM, JSON, MAX_FIELDS, Form, LoginForm, LogoutForm, RefreshForm, described_form, read_form
from runtime.problems import Problem

ANY_BYTES = st.binary(max_size=200)
# text that a form can hold: no lone surrogates
TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=50)
FIELDS = st.lists(st.tuples(st.sampled_from(["username", "password", "scope", "x", ""]), TEXT), max_size=5)


def read(body: bytes, kind: str | None = FORM, model: type[Form] = LoginForm) -> Form:
    """The form in a request with this body."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [] if kind is None else [(b"content-type", kind.encode("latin-1"))]
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)
    return asyncio.run(read_form(request, model))


def refusal(body: bytes, kind: str | None = FORM, model: type[Form] = LoginForm) -> Problem:
    with pytest.raises(Problem) as raised:
        read(body, kind, model)
    return raised.value


def text(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def test_a_form_and_json_say_the_same() -> None:
    fields = {"username": "ada@example.com", "password": "a+b c%&=é", "scope": "self", "client_id": "x"}
    for body, kind in (
        (urlencode(fields).encode(), FORM),
        (urlencode(fields).encode(), f"{FORM}; charset=utf-8"),
        (urlencode(fields).encode(), f"  {FORM.upper()}  ;x"),
        (orjson.dumps(fields), JSON),
        (orjson.dumps(fields), f"{JSON};charset=utf-8"),
    ):
        form = read(body, kind)
        assert (form.username, text(form.password)) == ("ada@example.com", "a+b c%&=é")
        assert (form.scope, form.client_id, form.client_secret) == ("self", "x", None)
        assert form.grant_type == "password"


@pytest.mark.parametrize("kind", [None, "", FORM, JSON, "text/plain", "multipart/form-data"])
def test_no_body_is_an_empty_form(kind: str | None) -> None:
    assert read(b"", kind).model_dump(exclude_defaults=True) == {}
    assert read(b"", kind, RefreshForm).grant_type == "refresh_token"
    assert read(b"", kind, LogoutForm).refresh_token is None


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"username=&password=&scope=&grant_type=", FORM),
        (b'{"username": "", "password": null, "scope": "", "grant_type": ""}', JSON),
        (b"other=1&Username=x", FORM),
        (b'{"other": [1], "Username": {}}', JSON),
    ],
)
def test_a_parameter_without_a_value_and_one_that_nobody_knows_are_left_out(body: bytes, kind: str) -> None:
    assert read(body, kind).model_dump(exclude_defaults=True) == {}


def test_a_secret_does_not_show_itself() -> None:
    form = read(b"username=ada&password=sesame&client_secret=sesame")
    assert "sesame" not in f"{form} {form!r}"


@pytest.mark.parametrize(
    "body",
    [
        b"username",
        b"&",
        b"a=1&",
        b"username=a&username=a",
        b"x=1&x=2",
        b"=1&=2",
        b"username=\xff",
        b"username=%ff",
        b"username=%ed%a0%80",
        b"username=%c0%80",
        "username=é".encode("latin-1"),
        urlencode([(f"p{number}", "1") for number in range(MAX_FIELDS + 1)]).encode(),
    ],
)
def test_what_is_no_form_is_refused(body: bytes) -> None:
    problem = refusal(body)
    assert (problem.status_code, problem.code) == (400, "invalid_request")
    assert problem.members["error"] == "invalid_request"


def test_as_many_parameters_as_any_client_sends_are_read() -> None:
    fields = {f"p{number}": "1" for number in range(MAX_FIELDS - 1)} | {"username": "ada"}
    assert read(urlencode(fields).encode()).username == "ada"


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"null", b"1", b'"username"', b"NaN", b'{"username": "\\ud800"}', b'{"a": "\xff"}', b"[" * 5000],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    problem = refusal(body, JSON)
    assert (problem.status_code, problem.code) == (400, "invalid_request")


@pytest.mark.parametrize("value", [1, 1.5, True, [], ["x"], {}, {"x": 1}])
@pytest.mark.parametrize("name", ["username", "password", "scope", "grant_type", "client_id", "client_secret"])
def test_what_is_no_text_is_refused_by_its_name_alone(name: str, value: object) -> None:
    problem = refusal(orjson.dumps({name: value, "more": "sesame"}), JSON)
    assert problem.status_code == 400
    assert problem.detail == f"These must be text: {name}"


@pytest.mark.parametrize(
    "kind", [None, "", "text/plain", "multipart/form-data; boundary=x", f"x/{FORM}", "\xff", f"{FORM},"]
)
def test_any_other_kind_of_body_is_refused(kind: str | None) -> None:
    problem = refusal(b"username=a", kind)
    assert (problem.status_code, problem.code) == (415, "invalid_request")
    assert problem.headers is not None
    assert problem.headers["Accept"] == f"{FORM}, {JSON}"
    assert problem.headers["Cache-Control"] == "no-store"


@given(body=ANY_BYTES, kind=st.sampled_from([FORM, JSON]), model=st.sampled_from([LoginForm, RefreshForm, LogoutForm]))
@example(body=b"username=%00", kind=FORM, model=LoginForm)
def test_any_bytes_are_a_form_or_refused(body: bytes, kind: str, model: type[Form]) -> None:
    found: object
    try:
        found = read(body, kind, model)
    except Problem as problem:
        found = (problem.status_code, problem.members["error"])
    assert isinstance(found, model) or found == (400, "invalid_request")


@given(fields=FIELDS)
def test_what_was_encoded_is_read(fields: list[tuple[str, str]]) -> None:
    body = urlencode(fields).encode()
    names = [name for name, _ in fields]
    if len(set(names)) < len(names):
        assert refusal(body).status_code == 400
        return
    form, sent = read(body), dict(fields)
    assert form.username == sent.get("username")
    assert text(form.password) == sent.get("password")
    assert form.scope == sent.get("scope")


@pytest.mark.parametrize(("model", "required"), [(LoginForm, True), (RefreshForm, False), (LogoutForm, False)])
def test_both_kinds_are_described(model: type[Any], *, required: bool) -> None:
    described = described_form(model, required=required)["requestBody"]
    assert described["required"] is required
    assert described["content"].keys() == {FORM, JSON}
    assert described["content"][FORM]["schema"]["properties"].keys() == model.model_fields.keys()
