"""`despacho submit`: one call per image, a few at a time."""

import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import click

from ..errors import DespachoError
from ..interrupts import Shelter
from ..results import Operation
from ..sync_client import Client
from ..wire import DEFAULT_TIMEOUT_S
from .exits import ExitCode, exit_code, explained, is_fatal, printable, worst
from .options import EPILOG, connection_options, image_options
from .printers import error_fields, operation_fields, print_json
from .session import connect
from .sources import Source, expand

CALLS_AT_A_TIME: Final = 8
"""Enough to hide the way to the server; few enough images to hold in memory."""


@click.command(epilog=EPILOG)
@image_options
@click.option(
    "--synced", is_flag=True, help="Accepted only when it is on Redis's disk, up to 3 s later."
)
@click.option(
    "--request-id",
    type=click.UUID,
    metavar="UUID",
    help="Of one image: repeating the command with it submits nothing twice.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print names of operations only.")
@connection_options("30 for each image")
@click.pass_context
def submit(ctx: click.Context, /, *, paths: tuple[str, ...], **options: Any) -> None:
    """Have images accepted now; `despacho wait` prints their labels later.

    A PATH is as in `despacho predict`. Prints each image and the name of its
    operation, in the order of the images, for `despacho wait -`.
    """
    if options["quiet"] and options["as_json"]:
        raise click.UsageError("--quiet and --json exclude each other")
    ctx.exit(SubmitCommand(**options).run(paths))


@dataclass(frozen=True, kw_only=True)
class SubmitCommand:
    """The options of one invocation, and what they do."""

    server: str
    model: str
    top_k: int
    include_scores: bool
    max_image_bytes: int
    synced: bool
    request_id: uuid.UUID | None
    timeout_s: float | None
    quiet: bool
    as_json: bool

    def run(self, arguments: Sequence[str]) -> ExitCode:
        """Submit what the arguments stand for, and print what became of each."""
        sources = expand(arguments)
        if self.request_id is not None and len(sources) != 1:
            raise click.UsageError("--request-id is for one image")
        code = ExitCode.OK
        lost: DespachoError | None = None
        unsent_count = 0
        # The client is closed first: that ends the calls which the pool waits for.
        with (
            ThreadPoolExecutor(CALLS_AT_A_TIME) as pool,
            connect(self.server, max_image_bytes=self.max_image_bytes) as client,
        ):
            waiting = iter(sources)
            for source, operation in self._submitted(client, pool, waiting):
                try:
                    self._show(source, operation())
                except DespachoError as error:
                    self._fail(source, error)
                    code = worst(code, exit_code(error))
                    if is_fatal(error) and lost is None:
                        lost = error
                        # The rest would fail as well, each after its timeout.
                        for unsent in waiting:
                            unsent_count += 1
                            self._skip(unsent, error)
        if unsent_count:
            click.echo(f"Error: {unsent_count} of {len(sources)} not submitted", err=True)
        return code

    def _submitted(
        self, client: Client, pool: ThreadPoolExecutor, sources: Iterator[Source]
    ) -> Iterator[tuple[Source, Callable[[], Operation]]]:
        """Yield what returns the operations, in the order of the images; few are ahead of it."""
        calls: deque[tuple[Source, Callable[[], Operation]]] = deque()
        # Interrupted in this thread, the pool could keep a lock, and never end.
        shelter = Shelter()
        for source in sources:
            if source.is_stdin:
                # In this thread, where Ctrl-C ends the wait for it; first those before it.
                yield from calls
                calls.clear()
                yield source, partial(self._submit, client, source)
                continue
            call = shelter.run(partial(pool.submit, self._submit, client, source))
            calls.append((source, partial(shelter.run, call.result)))
            if len(calls) == CALLS_AT_A_TIME:
                yield calls.popleft()
        yield from calls

    def _submit(self, client: Client, source: Source) -> Operation:
        return client.submit(
            source.image(self.max_image_bytes),
            model=self.model,
            top_k=self.top_k,
            include_scores=self.include_scores,
            request_id=str(self.request_id or ""),
            synced=self.synced,
            timeout_s=self.timeout_s or DEFAULT_TIMEOUT_S,
        )

    def _show(self, source: Source, operation: Operation) -> None:
        if self.as_json:
            print_json({"image": source.name, **operation_fields(operation)})
        elif self.quiet:
            click.echo(printable(operation.name))
        else:
            click.echo(f"{printable(source.name)}  {printable(operation.name)}")

    def _fail(self, source: Source, error: DespachoError) -> None:
        if self.as_json:
            print_json({"image": source.name, "error": error_fields(error)})
        else:
            click.echo(f"{printable(source.name)}: {explained(error, self.server)}", err=True)

    def _skip(self, source: Source, error: DespachoError) -> None:
        # Each image has a line for a program; a person is told once.
        if self.as_json:
            self._fail(source, error)
