import pytest

from runtime.entity_tags import EntityTag, entity_tags


@pytest.mark.parametrize(
    ("lines", "tags"),
    [
        (['"3"'], [EntityTag(opaque="3")]),
        ([' "3" '], [EntityTag(opaque="3")]),
        (['""'], [EntityTag(opaque="")]),
        (['W/"3"'], [EntityTag(opaque="3", weak=True)]),
        (['"3", W/"4" ,"5"'], [EntityTag(opaque="3"), EntityTag(opaque="4", weak=True), EntityTag(opaque="5")]),
        (['"3"', '"4"'], [EntityTag(opaque="3"), EntityTag(opaque="4")]),
        (['"a,b", "c"'], [EntityTag(opaque="a,b"), EntityTag(opaque="c")]),
        ([',"3",,'], [EntityTag(opaque="3")]),
        (["*"], None),
        ([" * "], None),
    ],
)
def test_a_list_of_tags_is_read(lines: list[str], tags: list[EntityTag] | None) -> None:
    assert entity_tags(lines) == tags


@pytest.mark.parametrize(
    "line", ["", " ", ",", "3", '"3', '3"', 'w/"3"', 'W/ "3"', '"3" "4"', '"3", *', '"3" x', "**", '"a\x7f"', '"a b"']
)
def test_anything_else_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not a list"):
        entity_tags([line])


def test_a_long_hostile_line_is_judged_at_once() -> None:
    with pytest.raises(ValueError, match="not a list"):
        entity_tags(['"a"' + ", " * 30_000 + "x"])
