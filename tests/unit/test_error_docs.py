"""docs/errors.md says of every error what the code does."""

from pathlib import Path

import pytest

from client.status import from_status
from dispatch import errors
from server.status import CODES, to_status

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
COLUMNS = 6

EXAMPLES: list[Exception] = [
    errors.InvalidArgument("top_k", ""),
    errors.ModelNotFound("cats"),
    errors.QueueFull("model:cats/jobs", ""),
    *(
        leaf("")
        for leaf in errors.leaves()
        if leaf not in {errors.InvalidArgument, errors.ModelNotFound, errors.QueueFull}
        and leaf is not errors.OutcomeUnknown  # never leaves the project
    ),
]
SURPRISE = RuntimeError("")


def rows() -> dict[str, list[str]]:
    """Return the rows of the table of reasons by reason."""
    cells = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text().splitlines()
        if line.startswith("| `")
    )
    return {row[0].strip("`"): row for row in cells if len(row) == COLUMNS}


def reason_of(error: Exception) -> str:
    return error.reason if isinstance(error, errors.DespachoError) else "INTERNAL"


def test_the_table_has_every_error_and_no_other() -> None:
    assert sorted(rows()) == sorted(reason_of(error) for error in [*EXAMPLES, SURPRISE])


@pytest.mark.parametrize("error", [*EXAMPLES, SURPRISE], ids=reason_of)
def test_a_row_says_what_a_caller_sees(error: Exception) -> None:
    status = to_status(error)
    _, code, details, retry, _, client_class = rows()[reason_of(error)]
    names = [detail.TypeName().rpartition(".")[2] for detail in status.details]
    assert names[0] == "ErrorInfo"
    assert code == f"`{CODES[status.code].name}`"
    assert details == (", ".join(f"`{name}`" for name in names[1:]) or "–")  # noqa: RUF001 - a dash
    assert retry == ("yes" if "RetryInfo" in names else "no")
    assert client_class == f"`{type(from_status(status)).__name__}`"
