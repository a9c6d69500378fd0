import pytest

from projector.findings import deviations, same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1e16, 10**16),
        (-0.0, 0.0),
        ({"a": [1, {"b": None}]}, {"a": [1.0, {"b": None}]}),
        (None, None),
        ("a", "a"),
    ],
)
def test_values_that_postgres_stores_alike_are_the_same(one: object, other: object) -> None:
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (0, False),
        (1, "1"),
        (None, False),
        ({}, []),
        ({"a": 1}, {"a": 1, "b": 2}),
        ([1, 2], [2, 1]),
        ([1], [1, 1]),
    ],
)
def test_values_that_differ_as_json_are_not(one: object, other: object) -> None:
    assert not same(one, other)
    assert not same(other, one)


def test_what_the_log_does_not_mention_is_null() -> None:
    assert list(deviations({"id": "1"}, {"id": "1", "email": None})) == []
    assert [one.name for one in deviations({"id": "1"}, {"id": "1", "email": "ada@example.com"})] == ["email"]
