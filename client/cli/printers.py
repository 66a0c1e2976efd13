"""How results look: for a person, or one JSON line each."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, Protocol

import click
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..errors import DespachoError
from ..results import Operation, PredictionResult
from .exits import printable

BAR_WIDTH: Final = 20
"""Characters of a score of 1."""

UNLIMITED_WIDTH: Final = 10_000
"""More characters than any table needs."""


class Printer(Protocol):
    """Where outcomes go."""

    def show(self, name: str, result: PredictionResult) -> None:
        """Print the labels of the image called `name`."""

    def fail(self, name: str, error: DespachoError) -> None:
        """Print why there are no labels for one image."""

    def give_up(self, names: Sequence[str], error: DespachoError) -> None:
        """Print that these will not be answered, as far as each needs it."""


class JsonPrinter:
    """One line per image on standard output, whatever becomes of it."""

    def show(self, name: str, result: PredictionResult) -> None:
        """Print all of the result but empty scores."""
        print_json({"image": name, **result_fields(result)})

    def fail(self, name: str, error: DespachoError) -> None:
        """Print the error for a program."""
        print_json({"image": name, "error": error_fields(error)})

    def give_up(self, names: Sequence[str], error: DespachoError) -> None:
        """Print a line for each, so that every image has one."""
        for name in names:
            self.fail(name, error)


class HumanPrinter:
    """A few lines per image; errors among them on a terminal, else on standard error."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._block = "█" if console.encoding.startswith("utf") else "#"

    def show(self, name: str, result: PredictionResult) -> None:
        """Print labels with bars, and where the time went."""
        timing = result.timing
        model = printable(f"{result.model} {result.model_version}".strip())
        text = Text(printable(name), style="bold")
        text.append(
            f"  {model}, {_ms(timing.total_s)} (queue {_ms(timing.queue_s)},"
            f" decode {_ms(timing.decode_s)}, inference {_ms(timing.inference_s)})",
            style="not bold dim",
        )
        self._print(text)
        for label in result.labels:
            bar = self._block * round(max(0.0, min(label.score, 1.0)) * BAR_WIDTH)
            line = Text(f"  {label.score:6.1%}  ")
            line.append(bar.ljust(BAR_WIDTH), style="green")
            self._print(line.append(f"  {printable(label.label)}"))

    def fail(self, name: str, error: DespachoError) -> None:
        """Print the error where the labels would be."""
        line = f"{printable(name)}: {printable(error.message)}"
        if self._console.is_terminal and sys.stderr.isatty():
            self._print(Text(line, style="red"))
        else:
            click.echo(line, err=True)

    def give_up(self, names: Sequence[str], error: DespachoError) -> None:
        """Print nothing: one message for all follows."""

    def _print(self, line: Text) -> None:
        # Soft: a long name is for the terminal to wrap, and a pipe has no width.
        self._console.print(line, soft_wrap=True)


class Bar:
    """The progress bar, or its absence.

    Args:
        output: where results are to be printed so that the bar stays below them.
        progress: None where nobody would see it.
        total: images.
    """

    def __init__(self, output: Console, progress: Progress | None, total: int) -> None:
        self.output = output
        self._progress = progress
        self._task = progress.add_task("images", total=total) if progress else None

    def advance(self) -> None:
        """Count one more image."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task)

    def close(self) -> None:
        """Leave the bar as it is; harmless when repeated."""
        if self._progress is not None:
            self._progress.stop()


class _PipeConsole(Console):
    """Leaves a broken pipe to whoever runs the command, who knows its exit code."""

    def on_broken_pipe(self) -> None:
        """Raise what rich would turn into exit code 1."""
        raise BrokenPipeError


def console() -> Console:
    """Return where tables go: standard output."""
    return _PipeConsole(highlight=False)


def print_table(table: RenderableType) -> None:
    """Print a table, or several, as wide as it is: a name that is cut off is of no use."""
    output = console()
    unlimited = output.options.update_width(UNLIMITED_WIDTH)
    output.width = max(output.width, output.measure(table, options=unlimited).maximum)
    output.print(table)


def rows_of(facts: Mapping[str, str]) -> Table:
    """Return what is known of one thing, one fact to a row."""
    table = Table.grid(padding=(0, 2))
    for heading, value in facts.items():
        table.add_row(Text(heading, style="bold"), Text(printable(value)))
    return table


@contextmanager
def progress(total: int) -> Iterator[Bar]:
    """Show a bar on standard error if that is a terminal and there is a wait."""
    output = console()
    if total <= 1 or not sys.stderr.isatty():
        yield Bar(output, None, total)
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False),
        # Standard output may be a file, and must not be drawn into.
        redirect_stdout=False,
        redirect_stderr=False,
        transient=True,
    )
    with bar:
        # When both are the same terminal, only the bar's own console can print
        # without tearing the bar apart.
        yield Bar(bar.console if output.is_terminal else output, bar, total)


def print_json(value: Any) -> None:
    """Print one line; ASCII, so that any file name survives any encoding."""
    click.echo(json.dumps(value))


def result_fields(result: PredictionResult) -> dict[str, Any]:
    """Return all of the result but empty scores."""
    fields = asdict(result)
    if not result.scores:
        del fields["scores"]
    return fields


def operation_fields(operation: Operation) -> dict[str, Any]:
    """Return all of the operation; times as in RFC 3339."""
    return {
        "name": operation.name,
        "model": operation.model,
        "state": operation.state,
        "attempt": operation.attempt,
        "created_at": rfc3339(operation.created_at),
        "ended_at": rfc3339(operation.ended_at),
        "expires_at": rfc3339(operation.expires_at),
        "estimated_position": operation.estimated_position,
        "request_id": operation.request_id,
        "result": result_fields(operation.result) if operation.result else None,
        "error": error_fields(operation.error) if operation.error else None,
    }


def rfc3339(time: datetime | None) -> str | None:
    """Return a time for a program."""
    return time.isoformat() if time else None


def local_time(time: datetime | None) -> str:
    """Return a time for a person, to the second."""
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}" if time else "-"


def error_fields(error: DespachoError) -> dict[str, Any]:
    """Return what a program may want to know."""
    return {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "field": error.field,
        "retry_after_s": error.retry_after_s,
        "request_id": error.request_id,
    }


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
