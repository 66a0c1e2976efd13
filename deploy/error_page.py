"""Makes the table of errors in docs/errors.md.

A row has what `dispatch/errors.py` says of an error, and what a caller really
gets: each error is made, turned into a status, and that into what the Python
client raises.
"""

from typing import Final

from google.rpc import status_pb2

from client.status import from_status
from deploy.generated_page import in_one_line, table
from deploy.state import ROOT
from dispatch import errors
from server.status import (
    CODES,
    INTERNAL_ADVICE,
    INTERNAL_REASON,
    to_status,
)

PAGE: Final = ROOT / "docs" / "errors.md"
HEADER: Final = (
    "reason",
    "status",
    "details beside `ErrorInfo`",
    "retry",
    "what happened",
    "what to do next",
    "Python client",
)
INTERNAL: Final = "Something nobody expected."
"""What happened when it is none of our errors."""

ARGUMENTS: Final[dict[type[errors.DespachoError], tuple[str, ...]]] = {
    errors.InvalidArgument: ("top_k", "example"),
    errors.QueueFull: ("model:example/jobs", "example"),
}
"""Of classes that want more than one text."""

NONE: Final = "\N{EN DASH}"


def parts() -> dict[str, str]:
    """Return what stands in the page, by name."""
    return {"errors": error_table()}


def error_table() -> str:
    """Describe every error that a caller may see, in the order of the tree."""
    rows = [
        (leaf.reason, example_of(leaf), in_one_line(leaf.__doc__ or ""), leaf.advice)
        for leaf in errors.leaves()
        if leaf is not errors.OutcomeUnknown  # never leaves the project
    ]
    rows.append((INTERNAL_REASON, RuntimeError(), INTERNAL, INTERNAL_ADVICE))
    return table(
        HEADER,
        (
            (f"`{reason}`", *seen(to_status(error)), what, advice, raised(to_status(error)))
            for reason, error, what, advice in rows
        ),
    )


def example_of(leaf: type[errors.DespachoError]) -> Exception:
    """Make an error of a class."""
    return leaf(*ARGUMENTS.get(leaf, ("example",)))


def seen(status: status_pb2.Status) -> tuple[str, str, str]:
    """Return the code of a status, its details but for the first, and whether to retry."""
    info, *others = (detail.TypeName().rpartition(".")[2] for detail in status.details)
    if info != "ErrorInfo":
        raise ValueError(f"the first detail is {info}")
    return (
        f"`{CODES[status.code].name}`",
        ", ".join(f"`{name}`" for name in others) or NONE,
        "yes" if "RetryInfo" in others else "no",
    )


def raised(status: status_pb2.Status) -> str:
    """Name the class that the Python client raises."""
    return f"`{type(from_status(status)).__name__}`"
