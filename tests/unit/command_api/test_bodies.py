"""An address at a domain that is known to be good is taken or refused as the validator itself has it."""

import string

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from command_api.bodies import Email

EMAIL = TypeAdapter[str](Email)
GOOD = ("example.com", "mail.example.org", "EXAMPLE.com", "a-b.example", "münchen.example")

locals_of_all_sorts = st.one_of(
    st.text(string.ascii_letters + string.digits + ".!#$%&'*+/=?^_`{|}~-", max_size=70),
    st.text(string.ascii_letters + '. @"\\,:;<>()[]é\u0301\n\x00', max_size=12),
    st.text(max_size=12),
)


@pytest.fixture(autouse=True)
def known_domains() -> None:
    for domain in GOOD:
        EMAIL.validate_python(f"somebody@{domain}")


@given(local=locals_of_all_sorts, domain=st.sampled_from([*GOOD, "localhost", "example..com", "[127.0.0.1]", ""]))
@example(local="a" * 64, domain=GOOD[0])
@example(local="a" * 65, domain=GOOD[0])
@example(local="a\n", domain=GOOD[0])
@example(local="a.", domain=GOOD[0])
@example(local=".a", domain=GOOD[0])
@example(local="a..b", domain=GOOD[0])
@example(local="a@b", domain=GOOD[0])
@example(local="", domain=GOOD[0])
def test_what_is_remembered_of_a_domain_changes_no_answer(local: str, domain: str) -> None:
    email = f"{local}@{domain}"
    try:
        validate_email(email.strip(), check_deliverability=False)
    except EmailNotValidError:
        with pytest.raises(ValidationError):
            EMAIL.validate_python(email)
    else:
        if len(email) <= 254:
            assert EMAIL.validate_python(email) == email.strip()


def test_a_domain_is_good_for_short_addresses_only() -> None:
    labels = ".".join(["a" * 60] * 3)
    domain = f"{labels}.example"
    assert EMAIL.validate_python(f"a@{domain}") == f"a@{domain}"
    with pytest.raises(ValidationError):
        EMAIL.validate_python(f"{'a' * 64}@{domain}")
