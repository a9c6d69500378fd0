import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.email import canonical_email


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada@Example.COM ", "ada@example.com"),
        ("STRASSE@example.com", "strasse@example.com"),
        ("straße@example.com", "strasse@example.com"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        ("ada@straße.example", "ada@xn--strae-oqa.example"),
        ("jose\u0301@example.com", "jos\u00e9@example.com"),
        ("JOS\u00c9@example.com", "jos\u00e9@example.com"),
        ("ada+news@example.com", "ada+news@example.com"),
        ("a.d.a@example.com", "a.d.a@example.com"),
        ('"a@b"@example.com', '"a@b"@example.com'),
        ("ada@not_idna.example", "ada@not_idna.example"),
    ],
)
def test_addresses_that_are_the_same_have_one_form(typed: str, canonical: str) -> None:
    assert canonical_email(typed) == canonical


@settings(derandomize=True)
@given(st.emails(), st.text(alphabet="éÉßñǅK\u0301 ", max_size=4))
def test_the_form_of_a_form_is_itself(address: str, accents: str) -> None:
    once = canonical_email(accents + address)
    assert canonical_email(once) == once
