"""What several commands have in common: options, and how the program ends."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

EPILOG: Final = """\b
Exit codes:
  0    all is well
  1    the server failed: unreachable, unavailable, too slow, internal error
  2    wrong usage
  3    the input is at fault: a missing file, not an image, an unknown name
  130  interrupted with Ctrl-C
  141  the reader of the output went away
If both 1 and 3 apply, it is 1."""


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


def image_options(command: F) -> F:
    """Add what commands about images have."""
    command = click.option(
        "--scores",
        "include_scores",
        is_flag=True,
        help="With --json: the score of every class, too.",
    )(command)
    command = click.option(
        "-k",
        "--top-k",
        type=click.IntRange(1, 1000),
        default=5,
        show_default=True,
        help="How many labels per image.",
    )(command)
    command = model_option("Which model.  [default: the server's]")(command)
    return click.argument("paths", nargs=-1, required=True, metavar="PATH...")(command)


def model_option(explanation: str) -> Callable[[F], F]:
    """Add the name of a model; empty if it is not given."""
    return click.option("-m", "--model", default="", help=explanation)


names_argument: Final = click.argument("names", nargs=-1, required=True, metavar="NAME...")
"""Operations or dead letters; see `names.py`."""
