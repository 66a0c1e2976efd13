"""`despacho models` and `despacho health`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

import click
from rich.table import Table
from rich.text import Text

from ..errors import DespachoError
from ..results import Health, Model
from ..sync_client import Client
from ..wire import DEFAULT_TIMEOUT_S
from .exits import ExitCode, exit_code, explained, printable
from .printers import console, error_fields, print_json

SHOWN_CLASSES: Final = 5
"""How many names give an idea of what a model knows; `--json` has all."""


def show_models(
    name: str | None, *, server: str, timeout_s: float | None, as_json: bool
) -> ExitCode:
    """Print all models, one JSON line each, or one of them with its labels."""
    timeout_s = timeout_s or DEFAULT_TIMEOUT_S
    with _explaining(server, as_json=as_json) as client:
        if name is not None:
            _print_model(client.model(name, timeout_s=timeout_s), as_json=as_json)
        else:
            _print_models(client.models(timeout_s=timeout_s), as_json=as_json)
    return ExitCode.OK


def show_health(service: str, *, server: str, timeout_s: float | None, as_json: bool) -> ExitCode:
    """Print the state of one service."""
    with _explaining(server, as_json=as_json) as client:
        state = client.health(service, timeout_s=timeout_s or DEFAULT_TIMEOUT_S)
        if as_json:
            print_json({"service": service, "status": state.name})
        else:
            click.echo(state.name)
    return ExitCode.OK if state is Health.SERVING else ExitCode.SERVER_ERROR


@contextmanager
def _explaining(server: str, *, as_json: bool) -> Iterator[Client]:
    """Connect; on an error say what to do, and exit."""
    with Client(server) as client:
        try:
            yield client
        except DespachoError as error:
            if as_json:
                print_json({"error": error_fields(error)})
            click.echo(f"Error: {explained(error, server)}", err=True)
            click.get_current_context().exit(exit_code(error))


def _print_models(models: tuple[Model, ...], *, as_json: bool) -> None:
    if as_json:
        for model in models:
            print_json(_fields(model))
        return
    if not models:
        click.echo("No model was ever served here: start a worker.")
        return
    table = Table("model", "version", "state", box=None, pad_edge=False)
    for heading in ("workers", "queued", "wait", "classes"):
        table.add_column(heading, justify="right")
    for model in models:
        table.add_row(
            Text(printable(model.name)),
            Text(printable(model.version)),
            model.state,
            str(model.live_workers),
            str(model.queue_depth),
            _wait(model),
            str(model.class_count),
        )
    console().print(table)


def _print_model(model: Model, *, as_json: bool) -> None:
    if as_json:
        print_json(_fields(model))
        return
    table = Table.grid(padding=(0, 2))
    rows = {
        "model": model.name,
        "version": model.version,
        "engine": model.engine,
        "state": model.state,
        "workers": str(model.live_workers),
        "live versions": ", ".join(model.live_versions),
        "queued": str(model.queue_depth),
        "wait": _wait(model),
        "input": f"{model.input_width} x {model.input_height} pixels",
        "batch": f"up to {model.max_batch_size} images",
        "classes": _classes(model),
    }
    for heading, value in rows.items():
        table.add_row(Text(heading, style="bold"), Text(printable(value)))
    console().print(table)


def _fields(model: Model) -> dict[str, Any]:
    return asdict(model)


def _classes(model: Model) -> str:
    shown = ", ".join(model.labels[:SHOWN_CLASSES])
    more = ", …" if len(model.labels) > SHOWN_CLASSES else ""
    return f"{model.class_count}: {shown}{more}"


def _wait(model: Model) -> str:
    return "-" if model.estimated_wait_s is None else f"{model.estimated_wait_s:.1f} s"
