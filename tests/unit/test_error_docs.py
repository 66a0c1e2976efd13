"""Every error says what happened and what to do next, on the page and to the caller."""

import pytest
from google.rpc import error_details_pb2

from client.status import from_status
from deploy.error_page import HEADER, NONE, PAGE, error_table, example_of
from deploy.generated_page import filled, table
from dispatch import errors
from server.status import to_status

LEAVES = [leaf for leaf in errors.leaves() if leaf is not errors.OutcomeUnknown]
MOST_ADVICE_BYTES = 160
"""It is sent with each refusal of a flood."""


def rows() -> dict[str, list[str]]:
    """Return the rows of the table by reason."""
    _, _, *lines = error_table().splitlines()
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0].strip("`"): row for row in cells}


def test_the_table_has_every_error_and_no_other() -> None:
    assert list(rows()) == [*(leaf.reason for leaf in LEAVES), "INTERNAL"]
    assert {len(row) for row in rows().values()} == {len(HEADER)}


def test_a_row_has_what_a_caller_gets() -> None:
    assert rows()["RATE_LIMITED"][:4] == [
        "`RATE_LIMITED`",
        "`RESOURCE_EXHAUSTED`",
        "`RetryInfo`, `QuotaFailure`",
        "yes",
    ]
    assert rows()["RATE_LIMITED"][-1] == "`Overloaded`"
    assert rows()["INTERNAL"][1:4] == ["`INTERNAL`", NONE, "no"]


def test_the_page_has_the_table_as_it_is_now() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, {"errors": error_table()}) == page, "run `make docs`"


def test_a_page_without_a_place_for_a_part_is_told() -> None:
    with pytest.raises(ValueError, match="no place for 'errors'"):
        filled("nothing here", {"errors": ""})


def test_a_bar_does_not_end_a_cell() -> None:
    assert table(("a", "b"), [("x|y", "z")]) == "| a | b |\n|---|---|\n| x\\|y | z |\n"


@pytest.mark.parametrize("error", [*map(example_of, LEAVES), RuntimeError()], ids=repr)
def test_the_caller_is_told_what_to_do_next(error: Exception) -> None:
    status = to_status(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    advice = info.metadata["advice"]
    assert advice.endswith(".")
    assert advice.isascii()
    assert len(advice) <= MOST_ADVICE_BYTES
    assert from_status(status).advice == advice


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_error_says_in_sentences_what_happened(leaf: type[errors.DespachoError]) -> None:
    assert leaf.__doc__ is not None
    assert leaf.__doc__ != (leaf.__base__ or leaf).__doc__
    assert leaf.__doc__.strip().endswith(".")
