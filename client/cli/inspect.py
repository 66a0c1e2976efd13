"""`despacho models`, `despacho health` and `despacho forget-model`."""

from dataclasses import asdict
from typing import Final

import click
from rich.table import Table
from rich.text import Text

from ..results import Health, Model
from ..wire import DEFAULT_TIMEOUT_S
from .exits import ExitCode, printable
from .options import EPILOG, connection_options
from .printers import print_json, print_table, rows_of
from .session import explaining

SHOWN_CLASSES: Final = 5
"""How many names give an idea of what a model knows; `--json` has all."""


@click.command(epilog=EPILOG)
@click.argument("name", required=False)
@connection_options("30")
def models(*, name: str | None, as_json: bool, server: str, timeout_s: float | None) -> None:
    """List the models that are served, or describe the one named NAME."""
    timeout_s = timeout_s or DEFAULT_TIMEOUT_S
    with explaining(server, as_json=as_json) as client:
        if name is not None:
            _print_model(client.model(name, timeout_s=timeout_s), as_json=as_json)
        else:
            _print_models(client.models(timeout_s=timeout_s), as_json=as_json)


@click.command(epilog=EPILOG)
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
    with explaining(server, as_json=as_json) as client:
        state = client.health(service, timeout_s=timeout_s or DEFAULT_TIMEOUT_S)
        if as_json:
            print_json({"service": service, "status": state.name})
        else:
            click.echo(state.name)
    ctx.exit(ExitCode.OK if state is Health.SERVING else ExitCode.SERVER_ERROR)


@click.command("forget-model", epilog=EPILOG)
@click.argument("name")
@connection_options("30")
def forget_model(*, name: str, as_json: bool, server: str, timeout_s: float | None) -> None:
    """Forget the model NAME, which is no longer served.

    Refused while a worker of it lives, images wait for it, or it has dead letters.
    """
    with explaining(server, as_json=as_json) as client:
        client.admin.forget_model(name, timeout_s=timeout_s or DEFAULT_TIMEOUT_S)
        if as_json:
            print_json({"name": name})


def _print_models(models: tuple[Model, ...], *, as_json: bool) -> None:
    if as_json:
        for model in models:
            print_json(asdict(model))
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
    print_table(table)


def _print_model(model: Model, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(model))
        return
    rows = {
        "model": model.name,
        "version": model.version,
        "engine": model.engine,
        "state": model.state,
        "workers": str(model.live_workers),
        "live versions": ", ".join(model.live_versions),
        "queued": str(model.queue_depth),
        "operations": str(model.queued_operations),
        "wait": _wait(model),
        "input": f"{model.input_width} x {model.input_height} pixels",
        "batch": f"up to {model.max_batch_size} images",
        "classes": _classes(model),
    }
    print_table(rows_of(rows))


def _classes(model: Model) -> str:
    shown = ", ".join(model.labels[:SHOWN_CLASSES])
    more = ", …" if len(model.labels) > SHOWN_CLASSES else ""
    return f"{model.class_count}: {shown}{more}"


def _wait(model: Model) -> str:
    return "-" if model.estimated_wait_s is None else f"{model.estimated_wait_s:.1f} s"
