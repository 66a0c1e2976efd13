"""What several commands have in common: options, and how the program ends."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from ..limits import MAX_IMAGE_BYTES, MOST_IMAGE_BYTES

F = TypeVar("F", bound=Callable[..., Any])

ACCESS: Final = "despacho.access"
"""Begins the names in `Context.meta` of what `access_options` read."""

FILES: Final = {
    "api-key-file": "The API key is in it; or DESPACHO_API_KEY has the key itself.",
    "tls-ca": "Roots to trust, PEM; encrypts.",
    "tls-cert": "Certificate to show, PEM; encrypts.",
    "tls-key": "Its private key, PEM.",
}

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
            callback=_number,
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
        command = access_options(command)
        return click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")(command)

    return decorate


def _number(ctx: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    # It is in every range, as no comparison with it holds.
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is not a number of seconds", ctx, parameter)
    return value


def access_options(command: F) -> F:
    """Add who is calling, and how it is encrypted; `session.connect` reads it."""
    for name, explanation in reversed(FILES.items()):
        command = click.option(
            f"--{name}",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            envvar=f"DESPACHO_{name.replace('-', '_').upper()}",
            show_envvar=True,
            metavar="FILE",
            help=explanation,
            expose_value=False,
            callback=_keep,
        )(command)
    command = click.option(
        "--tls",
        is_flag=True,
        envvar="DESPACHO_TLS",
        show_envvar=True,
        help="Encrypt; trust the roots of --tls-ca, or those that gRPC comes with.",
        expose_value=False,
        callback=_keep,
    )(command)
    return click.option(
        "--allow-insecure-key",
        is_flag=True,
        help="Send the API key to another machine although it is not encrypted.",
        expose_value=False,
        callback=_keep,
    )(command)


def _keep(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    ctx.meta[f"{ACCESS}.{parameter.name}"] = value


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
    command = max_image_option(command)
    return click.argument("paths", nargs=-1, required=True, metavar="PATH...")(command)


def max_image_option(command: F) -> F:
    """Add how large an image may be; what is larger never gets to the server, or from it."""
    return click.option(
        "--max-image-bytes",
        type=click.IntRange(1, MOST_IMAGE_BYTES),
        default=MAX_IMAGE_BYTES,
        envvar="DESPACHO_MAX_IMAGE_BYTES",
        show_default=True,
        show_envvar=True,
        metavar="BYTES",
        help="Largest image: the server's limit, if that is another.",
    )(command)


def model_option(explanation: str) -> Callable[[F], F]:
    """Add the name of a model; empty if it is not given."""
    return click.option("-m", "--model", default="", help=explanation)


names_argument: Final = click.argument("names", nargs=-1, required=True, metavar="NAME...")
"""Operations or dead letters; see `names.py`."""
