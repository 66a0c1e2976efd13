"""A client for one command, and what a person is told when it fails."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from ..errors import DespachoError
from ..sync_client import Client
from .exits import ExitCode, exit_code, explained, is_fatal, printable, worst
from .printers import error_fields, print_json


@contextmanager
def explaining(server: str, *, as_json: bool) -> Iterator[Client]:
    """Connect; on an error say what to do, and exit."""
    with Client(server) as client:
        try:
            yield client
        except DespachoError as error:
            if as_json:
                print_json({"error": error_fields(error)})
            click.echo(f"Error: {explained(error, server)}", err=True)
            click.get_current_context().exit(exit_code(error))


def each(
    names: Iterator[str] | Sequence[str],
    act: Callable[[str], None],
    *,
    server: str,
    as_json: bool,
) -> ExitCode:
    """Do something with each of the names; a wrong one does not stop the others."""
    code = ExitCode.OK
    for name in names:
        try:
            act(name)
        except DespachoError as error:
            if as_json:
                print_json({"name": name, "error": error_fields(error)})
            else:
                click.echo(f"{printable(name)}: {explained(error, server)}", err=True)
            code = worst(code, exit_code(error))
            if is_fatal(error):
                break
    return code
