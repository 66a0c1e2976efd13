"""`despacho dead-letters`: images that were set aside because their workers died."""

from typing import BinaryIO

import click
from rich.table import Table
from rich.text import Text

from ..results import DeadLetter
from ..wire import DEFAULT_TIMEOUT_S
from .exits import printable
from .names import names as expanded
from .options import (
    EPILOG,
    connection_options,
    max_image_option,
    model_option,
    names_argument,
)
from .printers import local_time, operation_fields, print_json, print_table, rfc3339, rows_of
from .session import each, explaining


@click.group(epilog=EPILOG)
def dead_letters() -> None:
    """Look after images whose workers died, again and again.

    Each was set aside so that it cannot take more workers along. The oldest make
    room for new ones.
    """


@dead_letters.command("list", epilog=EPILOG)
@model_option("Of which model.  [default: the server's]")
@connection_options("30")
def list_letters(*, model: str, as_json: bool, server: str, timeout_s: float | None) -> None:
    """List dead letters, oldest first."""
    table = Table("name", "reason", "deliveries", "bytes", "created", box=None, pad_edge=False)
    with explaining(server, as_json=as_json) as client:
        for letter in client.admin.dead_letters(model, timeout_s=timeout_s or DEFAULT_TIMEOUT_S):
            if as_json:
                print_json(_fields(letter))
            else:
                table.add_row(
                    Text(printable(letter.name)),
                    Text(printable(letter.reason)),
                    str(letter.deliveries),
                    str(letter.size_bytes),
                    local_time(letter.created_at),
                )
    if table.row_count:
        print_table(table)
    elif not as_json:
        click.echo("There are no dead letters.")


@dead_letters.command(epilog=EPILOG)
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.File("wb", lazy=True),
    metavar="FILE",
    help="Write the image there; - for standard output, and nothing else to it.",
)
@max_image_option
@connection_options("30")
def show(
    *,
    name: str,
    output: BinaryIO | None,
    max_image_bytes: int,
    as_json: bool,
    server: str,
    timeout_s: float | None,
) -> None:
    """Describe the dead letter NAME.

    Mind what you open the image with: it has already brought workers down.
    """
    with explaining(server, as_json=as_json, max_image_bytes=max_image_bytes) as client:
        letter = client.admin.dead_letter(name, timeout_s=timeout_s or DEFAULT_TIMEOUT_S)
    if output is not None:
        output.write(letter.image)
        if output.name in {"-", "<stdout>"}:
            return
    if as_json:
        print_json(_fields(letter))
        return
    rows = {
        "name": letter.name,
        "reason": letter.reason,
        "deliveries": str(letter.deliveries),
        "created": local_time(letter.created_at),
        "request": letter.request_id,
        "top k": str(letter.top_k),
        "image": f"{len(letter.image)} bytes",
    }
    print_table(rows_of(rows))


@dead_letters.command(epilog=EPILOG)
@names_argument
@connection_options("30")
@click.pass_context
def replay(
    ctx: click.Context,
    *,
    names: tuple[str, ...],
    as_json: bool,
    server: str,
    timeout_s: float | None,
) -> None:
    """Submit the dead letters named NAME once more; - reads names from standard input.

    Prints the letter and its operation, for `despacho wait -`.
    """
    with explaining(server, as_json=as_json) as client:

        def act(name: str) -> None:
            operation = client.admin.replay_dead_letter(
                name, timeout_s=timeout_s or DEFAULT_TIMEOUT_S
            )
            if as_json:
                print_json({"dead_letter": name, **operation_fields(operation)})
            else:
                click.echo(f"{printable(name)}  {printable(operation.name)}")

        ctx.exit(each(expanded(names), act, server=server, as_json=as_json))


@dead_letters.command(epilog=EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--all", "is_all", is_flag=True, help="All letters of the model.")
@click.option("-y", "--yes", is_flag=True, help="With --all: do not ask.")
@model_option("With --all: of which model.  [default: the server's]")
@connection_options("30")
def purge(
    *,
    names: tuple[str, ...],
    is_all: bool,
    yes: bool,
    model: str,
    as_json: bool,
    server: str,
    timeout_s: float | None,
) -> None:
    """Delete the dead letters named NAME for good, or --all; - reads names.

    Says how many were deleted: those that are not there are not counted.
    """
    if is_all == bool(names):
        raise click.UsageError("give either names or --all")
    if is_all and not yes:
        whose = f"of {model}" if model else "of the server's default model"
        click.confirm(f"Delete all dead letters {whose}?", abort=True, err=True)
    with explaining(server, as_json=as_json) as client:
        purged_count = client.admin.purge_dead_letters(
            model, expanded(names), all=is_all, timeout_s=timeout_s or DEFAULT_TIMEOUT_S
        )
    if as_json:
        print_json({"purged_count": purged_count})
    else:
        click.echo(f"{purged_count} deleted")


def _fields(letter: DeadLetter) -> dict[str, object]:
    return {
        "name": letter.name,
        "request_id": letter.request_id,
        "deliveries": letter.deliveries,
        "reason": letter.reason,
        "created_at": rfc3339(letter.created_at),
        "size_bytes": letter.size_bytes,
        "top_k": letter.top_k,
    }
