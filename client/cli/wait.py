"""`despacho wait`: from names of operations to labels."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import click
import grpc

from ..errors import DeadlineExceeded, DespachoError
from ..operation_wire import DEFAULT_WAIT_TIMEOUT_S
from ..results import Operation
from ..sync_client import Client
from ..wire import DEFAULT_TIMEOUT_S
from .exits import ExitCode, exit_code, explained, is_fatal, printable, worst
from .names import Named, expand
from .options import EPILOG, connection_options, names_argument
from .printers import HumanPrinter, console, error_fields, print_json, result_fields
from .session import connect


@click.command(epilog=EPILOG)
@names_argument
@connection_options("300, for all of them together")
@click.pass_context
def wait(
    ctx: click.Context,
    *,
    names: tuple[str, ...],
    as_json: bool,
    server: str,
    timeout_s: float | None,
) -> None:
    """Wait for the operations named NAME, and print labels as `despacho predict` does.

    With - the last word of each line of standard input is a name, and what is
    before it is the image: what `despacho submit` prints.

    With --json there is one line per operation, with `image`, `operation` and
    either `labels` or `error`. One that is not done in time has the error
    OPERATION_NOT_DONE, and is not cancelled.
    """
    printer = Printer(server, as_json=as_json)
    with connect(server) as client:
        outcome = Waiter(client, time.monotonic, timeout_s or DEFAULT_WAIT_TIMEOUT_S)
        ctx.exit(outcome.run(expand(names), printer))


class Printer:
    """Where outcomes go.

    Args:
        server: as the user called it.
        as_json: for a program, not for a person.
    """

    def __init__(self, server: str, *, as_json: bool) -> None:
        self._server = server
        self._as_json = as_json
        self._human = HumanPrinter(console())

    def show(self, named: Named, operation: Operation) -> None:
        """Print the labels."""
        if self._as_json:
            self._print_json(named, result_fields(operation.unwrap()))
        else:
            self._human.show(named.label, operation.unwrap())

    def fail(self, named: Named, error: DespachoError) -> None:
        """Print why there are none."""
        if self._as_json:
            self._print_json(named, {"error": error_fields(error)})
        else:
            click.echo(f"{printable(named.label)}: {explained(error, self._server)}", err=True)

    def skip(self, named: Named, error: DespachoError) -> None:
        """Print that the server was not even asked; a person was told why once."""
        if self._as_json:
            self.fail(named, error)

    def _print_json(self, named: Named, fields: dict[str, Any]) -> None:
        print_json({"image": named.label, "operation": named.name, **fields})


class Waiter:
    """Waits for one operation after the other: meanwhile the server works on all.

    Args:
        client: already connected or not.
        now: monotonic clock, seconds.
        timeout_s: for all operations together.
    """

    def __init__(self, client: Client, now: Callable[[], float], timeout_s: float) -> None:
        self._client = client
        self._now = now
        self._ends_at = now() + timeout_s
        self._is_reached = False

    def run(self, operations: Iterable[Named], printer: Printer) -> ExitCode:
        """Print what becomes of each."""
        code = ExitCode.OK
        lost: DespachoError | None = None
        for named in operations:
            if lost is not None:
                printer.skip(named, lost)
                continue
            try:
                operation = self._ended(named.name)
            except DespachoError as error:
                printer.fail(named, error)
                code = worst(code, exit_code(error))
                lost = error if is_fatal(error) else None
                continue
            error_or_none = operation.error if operation.is_done else _not_done(operation)
            if error_or_none is None:
                printer.show(named, operation)
            else:
                printer.fail(named, error_or_none)
                code = worst(code, exit_code(error_or_none))
        return code

    def _ended(self, name: str) -> Operation:
        if not self._is_reached:
            # `wait` would go on until the time is over, and here the address may
            # just be wrong.
            operation = self._client.operation(
                name, timeout_s=min(DEFAULT_TIMEOUT_S, self._left_s())
            )
            self._is_reached = True
            if operation.is_done:
                return operation
        return self._client.wait(name, timeout_s=self._left_s())

    def _left_s(self) -> float:
        return max(0.0, self._ends_at - self._now())


def _not_done(operation: Operation) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"not done in time, {operation.state}",
        code=grpc.StatusCode.DEADLINE_EXCEEDED,
        reason="OPERATION_NOT_DONE",
        request_id=operation.request_id,
    )
