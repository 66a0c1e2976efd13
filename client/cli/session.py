"""A client for one command, and what a person is told when it fails."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import grpc

from ..api_key import InsecureKey
from ..errors import DespachoError
from ..limits import MAX_IMAGE_BYTES
from ..sync_client import Client
from .exits import ExitCode, exit_code, explained, is_fatal, printable, worst
from .options import ACCESS, FILES
from .printers import error_fields, print_json


def connect(server: str, *, max_image_bytes: int = MAX_IMAGE_BYTES) -> Client:
    """Return a client as the options say; wrong ones end the program."""
    options = click.get_current_context().meta
    files: dict[str, Path | None] = {
        name: options.get(f"{ACCESS}.{name.replace('-', '_')}") for name in FILES
    }
    try:
        return Client(
            server,
            api_key=api_key_from(files["api-key-file"]),
            credentials=credentials_from(files, is_wanted=bool(options.get(f"{ACCESS}.tls"))),
            allow_insecure_key=bool(options.get(f"{ACCESS}.allow_insecure_key")),
            max_image_bytes=max_image_bytes,
        )
    except InsecureKey as error:
        raise click.UsageError(
            f"the API key would go to {server} unencrypted: use --tls or --tls-ca, or"
            " --allow-insecure-key if the network is safe"
        ) from error
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error


def api_key_from(path: Path | None) -> str:
    """Return the API key that is in a file, or without one in the environment; empty: none.

    Raises:
        OSError, ValueError: there is none in the file.
    """
    if path is None:
        return os.environ.get("DESPACHO_API_KEY", "").strip()
    key = path.read_text().strip()
    if not key:
        raise ValueError(f"there is no API key in {path}")
    return key


def credentials_from(
    files: dict[str, Path | None], *, is_wanted: bool
) -> "grpc.ChannelCredentials | None":  # only a type
    """Return what a connection is encrypted with; None: it is not.

    Args:
        files: by the name of their option.
        is_wanted: whether to encrypt also if no file is given.

    Raises:
        OSError, ValueError: the files cannot be used.
    """
    contents = [
        path.read_bytes() if (path := files[name]) is not None else None
        for name in ("tls-ca", "tls-key", "tls-cert")
    ]
    if not is_wanted and contents == [None, None, None]:
        return None
    if (contents[1] is None) != (contents[2] is None):
        raise ValueError("--tls-cert and --tls-key belong together")
    return grpc.ssl_channel_credentials(*contents)


@contextmanager
def explaining(
    server: str, *, as_json: bool, max_image_bytes: int = MAX_IMAGE_BYTES
) -> Iterator[Client]:
    """Connect; on an error say what to do, and exit."""
    with connect(server, max_image_bytes=max_image_bytes) as client:
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
