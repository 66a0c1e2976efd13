"""`despacho predict`: which images, over which kind of call, shown how."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from ..errors import DespachoError, InvalidInput
from ..images import Image
from ..results import PredictionResult, Priority, StreamOutcome
from ..stream_ledger import DEFAULT_STREAM_TIMEOUT_S
from ..sync_client import Client
from ..wire import DEFAULT_TIMEOUT_S
from .exits import ExitCode, exit_code, explained, worst
from .options import EPILOG, connection_options, image_options
from .printers import HumanPrinter, JsonPrinter, Printer, progress
from .session import connect
from .sources import Source, expand


@click.command(epilog=EPILOG)
@image_options
@click.option(
    "-p",
    "--priority",
    type=click.Choice(["high", "normal", "low"]),
    default="normal",
    show_default=True,
    help="How soon it matters.",
)
@connection_options("30; of many images, 300 for each call that carries them")
@click.pass_context
def predict(ctx: click.Context, /, *, paths: tuple[str, ...], **options: Any) -> None:
    """Label images.

    A PATH is a file, a folder (its images, at any depth), a pattern such as
    '*.jpg' or 'photos/**/*.png', a file: URL, or - for standard input. Many
    images go over one stream, and are answered in any order.

    With --json there is one line per image, with `image` and either `labels` or
    `error`.
    """
    ctx.exit(PredictCommand(**options).run(paths))


@dataclass(frozen=True, kw_only=True)
class PredictCommand:
    """The options of one invocation, and what they do."""

    server: str
    model: str
    top_k: int
    priority: str
    include_scores: bool
    max_image_bytes: int
    timeout_s: float | None
    as_json: bool

    def run(self, arguments: Sequence[str]) -> ExitCode:
        """Label what the arguments stand for, and print it."""
        sources = expand(arguments)
        with (
            connect(self.server, max_image_bytes=self.max_image_bytes) as client,
            progress(len(sources)) as bar,
        ):
            printer: Printer = JsonPrinter() if self.as_json else HumanPrinter(bar.output)
            answered: set[int] = set()
            code = ExitCode.OK
            try:
                for outcome in self._outcomes(client, sources):
                    answered.add(outcome.key)
                    code = worst(code, _shown(printer, sources[outcome.key].name, outcome))
                    bar.advance()
            except DespachoError as error:
                missing = [s for i, s in enumerate(sources) if i not in answered]
                printer.give_up([source.name for source in missing], error)
                bar.close()
                click.echo(f"Error: {self._epitaph(len(sources), len(missing), error)}", err=True)
                code = worst(code, exit_code(error))
        return code

    def _outcomes(self, client: Client, sources: Sequence[Source]) -> Iterator[StreamOutcome[int]]:
        """Outcomes by index; what has no image never gets to the server."""
        images: list[tuple[int, Source]] = []
        for index, source in enumerate(sources):
            if source.problem is None:
                images.append((index, source))
            else:
                yield StreamOutcome(index, error=source.problem)
        if len(images) == 1:
            index, source = images[0]
            yield self._one(client, index, source)
        elif images:
            yield from client.predict_stream(
                self._loaded(images),
                model=self.model,
                top_k=self.top_k,
                priority=Priority(self.priority),
                include_scores=self.include_scores,
                timeout_s=self.timeout_s or DEFAULT_STREAM_TIMEOUT_S,
            )

    def _loaded(self, images: Sequence[tuple[int, Source]]) -> Iterator[tuple[int, Image]]:
        # A generator, so that standard input is read when its turn comes, and paths
        # are opened by the client, one at a time.
        for index, source in images:
            yield index, source.image(self.max_image_bytes)

    def _one(self, client: Client, index: int, source: Source) -> StreamOutcome[int]:
        try:
            result: PredictionResult = client.predict(
                source.image(self.max_image_bytes),
                model=self.model,
                top_k=self.top_k,
                priority=Priority(self.priority),
                include_scores=self.include_scores,
                timeout_s=self.timeout_s or DEFAULT_TIMEOUT_S,
            )
        except InvalidInput as error:
            return StreamOutcome(index, error=error)
        return StreamOutcome(index, result=result)

    def _epitaph(self, total: int, missing: int, error: DespachoError) -> str:
        explanation = explained(error, self.server)
        return explanation if total == 1 else f"{missing} of {total} not answered; {explanation}"


def _shown(printer: Printer, name: str, outcome: StreamOutcome[int]) -> ExitCode:
    if outcome.error is not None:
        printer.fail(name, outcome.error)
        return exit_code(outcome.error)
    printer.show(name, outcome.unwrap())
    return ExitCode.OK
