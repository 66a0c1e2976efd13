"""The commands and their options; what they do is in the other files."""

import io
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from .. import __version__

F = TypeVar("F", bound=Callable[..., Any])

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

EPILOG = """\b
Exit codes:
  0    all is well
  1    the server failed: unreachable, unavailable, too slow, internal error
  2    wrong usage
  3    the input is at fault: a missing file, not an image, an unknown model
  130  interrupted with Ctrl-C
  141  the reader of the output went away
If both 1 and 3 apply, it is 1."""


class QuietGroup(click.Group):
    """Ends as a good citizen of a pipeline does: on Ctrl-C, and under `| head`."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; flush here, where a broken pipe can still be caught."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            # Python flushes again when it exits, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(EXIT_BROKEN_PIPE)


def connection_options(default_timeout: str) -> Callable[[F], F]:
    """Add what every command has."""

    def decorate(command: F) -> F:
        command = click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help=f"Longest wait. [default: {default_timeout}]",
        )(command)
        command = click.option(
            "-s",
            "--server",
            default="127.0.0.1:50051",
            envvar="DESPACHO_SERVER",
            show_default=True,
            show_envvar=True,
            metavar="HOST:PORT",
            help="Where the server is; also unix:/path.",
        )(command)
        return click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")(command)

    return decorate


@click.group(
    cls=QuietGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG
)
@click.version_option(__version__, prog_name="despacho")
def app() -> None:
    """Label images through a Despacho server."""


@app.command(epilog=EPILOG)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-m", "--model", default="", help="Which model.  [default: the server's]")
@click.option(
    "-k",
    "--top-k",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="How many labels per image.",
)
@click.option(
    "-p",
    "--priority",
    type=click.Choice(["high", "normal", "low"]),
    default="normal",
    show_default=True,
    help="How soon it matters.",
)
@click.option("--scores", is_flag=True, help="With --json: the score of every class, too.")
@connection_options("30; of many images, 300 for each call that carries them")
@click.pass_context
def predict(
    ctx: click.Context,
    *,
    paths: tuple[str, ...],
    model: str,
    top_k: int,
    priority: str,
    scores: bool,
    as_json: bool,
    server: str,
    timeout_s: float | None,
) -> None:
    """Label images.

    A PATH is a file, a folder (its images, at any depth), a pattern such as
    '*.jpg' or 'photos/**/*.png', a file: URL, or - for standard input. Many
    images go over one stream, and are answered in any order.

    With --json there is one line per image, with `image` and either `labels` or
    `error`.
    """
    from .predict import PredictCommand

    command = PredictCommand(
        server=server,
        model=model,
        top_k=top_k,
        priority=priority,
        include_scores=scores,
        timeout_s=timeout_s,
        as_json=as_json,
    )
    ctx.exit(command.run(paths))


@app.command(epilog=EPILOG)
@click.argument("name", required=False)
@connection_options("30")
@click.pass_context
def models(
    ctx: click.Context, *, name: str | None, as_json: bool, server: str, timeout_s: float | None
) -> None:
    """List the models that are served, or describe the one named NAME."""
    from .inspect import show_models

    ctx.exit(show_models(name, server=server, timeout_s=timeout_s, as_json=as_json))


@app.command(epilog=EPILOG)
@click.argument("service", default="")
@connection_options("30")
@click.pass_context
def health(
    ctx: click.Context, *, service: str, as_json: bool, server: str, timeout_s: float | None
) -> None:
    """Say whether SERVICE is serving; exits with 0 only if it is.

    SERVICE is empty (the server's process answers), `readiness` (it can take
    requests), or the name of a model.
    """
    from .inspect import show_health

    ctx.exit(show_health(service, server=server, timeout_s=timeout_s, as_json=as_json))


def main() -> None:
    """Run the command line; never returns."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A label that the terminal cannot show is no reason to stop.
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="despacho")
