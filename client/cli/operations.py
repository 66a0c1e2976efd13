"""`despacho operations`, `despacho cancel` and `despacho delete`."""

from collections.abc import Iterable

import click
from rich.table import Table
from rich.text import Text

from ..results import Operation, OperationState
from ..wire import DEFAULT_TIMEOUT_S
from .exits import printable
from .names import names as expanded
from .options import EPILOG, connection_options, model_option, names_argument
from .printers import local_time, operation_fields, print_json, print_table, rows_of
from .session import each, explaining


@click.command(epilog=EPILOG)
@click.argument("name", required=False)
@model_option("Only those of one model.")
@connection_options("30")
def operations(
    *, name: str | None, model: str, as_json: bool, server: str, timeout_s: float | None
) -> None:
    """List what you submitted, or show the operation named NAME.

    An operation is forgotten some time after it has ended (an hour, unless the
    server is told otherwise).
    """
    timeout_s = timeout_s or DEFAULT_TIMEOUT_S
    with explaining(server, as_json=as_json) as client:
        if name is not None:
            _print_one(client.operation(name, timeout_s=timeout_s), as_json=as_json)
        else:
            _print_all(client.operations(model=model, timeout_s=timeout_s), as_json=as_json)


@click.command(epilog=EPILOG)
@names_argument
@connection_options("30")
@click.pass_context
def cancel(
    ctx: click.Context,
    *,
    names: tuple[str, ...],
    as_json: bool,
    server: str,
    timeout_s: float | None,
) -> None:
    """Cancel the operations named NAME; - reads names from standard input.

    One that has ended stays as it is. One that is cancelled stays there, too: with
    the error OPERATION_CANCELLED.
    """
    with explaining(server, as_json=as_json) as client:

        def act(name: str) -> None:
            client.cancel(name, timeout_s=timeout_s or DEFAULT_TIMEOUT_S)
            _print_name(name, as_json=as_json)

        ctx.exit(each(expanded(names), act, server=server, as_json=as_json))


@click.command(epilog=EPILOG)
@names_argument
@connection_options("30")
@click.pass_context
def delete(
    ctx: click.Context,
    *,
    names: tuple[str, ...],
    as_json: bool,
    server: str,
    timeout_s: float | None,
) -> None:
    """Forget the operations named NAME; - reads names from standard input."""
    with explaining(server, as_json=as_json) as client:

        def act(name: str) -> None:
            client.delete(name, timeout_s=timeout_s or DEFAULT_TIMEOUT_S)
            _print_name(name, as_json=as_json)

        ctx.exit(each(expanded(names), act, server=server, as_json=as_json))


def _print_name(name: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name})


def _print_all(found: Iterable[Operation], *, as_json: bool) -> None:
    if as_json:
        for operation in found:
            print_json(operation_fields(operation))
        return
    table = Table("name", "state", "what", "created", "ended", box=None, pad_edge=False)
    for operation in found:
        table.add_row(
            Text(printable(operation.name)),
            operation.state,
            Text(printable(_what(operation))),
            local_time(operation.created_at),
            local_time(operation.ended_at),
        )
    if table.row_count:
        print_table(table)
    else:
        click.echo("Nothing was submitted, or it is forgotten.")


def _print_one(operation: Operation, *, as_json: bool) -> None:
    if as_json:
        print_json(operation_fields(operation))
        return
    rows = {
        "name": operation.name,
        "state": operation.state,
        "what": _what(operation),
        "attempt": str(operation.attempt),
        "created": local_time(operation.created_at),
        "ended": local_time(operation.ended_at),
        "expires": local_time(operation.expires_at),
        "request": operation.request_id,
    }
    table = rows_of(rows)
    for label in operation.result.labels if operation.result else ():
        table.add_row(f"{label.score:6.1%}", Text(printable(label.label)))
    print_table(table)


def _what(operation: Operation) -> str:
    """Say the one thing that matters most in its state."""
    if operation.error is not None:
        return operation.error.reason or operation.error.code.name
    if operation.result is not None:
        return operation.result.labels[0].label if operation.result.labels else "no labels"
    if operation.state is OperationState.QUEUED:
        return f"position {operation.estimated_position}"
    return f"attempt {operation.attempt}"
