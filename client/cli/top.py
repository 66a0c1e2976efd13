"""`despacho top`: what the whole system does, live."""

import sys
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import asdict
from typing import Final

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .. import stats_wire
from ..errors import Unavailable, Unreachable
from ..stats import Latency, ModelStats, Queue, Stats, Worker
from ..sync_client import Client
from .exits import printable
from .options import EPILOG, connection_options
from .printers import console, print_json, print_table, rfc3339
from .session import explaining

MIB: Final = 1024 * 1024

ONCE_S: Final = 1.5
"""Over how long the rates are counted at least that are shown once, seconds."""

AGAIN_S: Final = 1.0
"""How long to wait before a server is asked again that went away."""


@click.command(epilog=EPILOG)
@click.argument("model", default="")
@click.option(
    "--period",
    "period_s",
    type=click.FloatRange(1, 60),
    default=stats_wire.DEFAULT_PERIOD_S,
    show_default=True,
    metavar="SECONDS",
    help="How often to show it.",
)
@click.option("--once", is_flag=True, help="Show it once, after two seconds, and end.")
@connection_options("for ever")
def top(
    *,
    model: str,
    period_s: float,
    once: bool,
    as_json: bool,
    server: str,
    timeout_s: float | None,
) -> None:
    """Show what the whole system does, or the model named MODEL, until Ctrl-C.

    Queues, workers, throughput, latencies and failures of the last ten seconds, over
    all servers. Needs the scope `admin` where API keys are wanted.
    """
    output = console()
    with explaining(server, as_json=as_json) as client:
        if once:
            # Rates need time between two looks. Whoever wants one does not wait for a server.
            shown = client.admin.watch_stats(model, period_s=period_s, timeout_s=timeout_s)
            _print(next(each for each in shown if each.window_s > ONCE_S), as_json=as_json)
            shown.close()
            return
        looks = _looks(client, model, period_s, timeout_s)
        if as_json or not sys.stdout.isatty() or output.is_dumb_terminal:
            # On a dumb terminal nothing can be drawn over; lines can be written.
            is_away = False
            for seen in looks:
                if isinstance(seen, Stats):
                    _print(seen, as_json=as_json)
                elif not is_away:
                    click.echo(_away(seen).plain, err=True)
                is_away = not isinstance(seen, Stats)
        else:
            with Live(console=output, screen=True, auto_refresh=False) as live:
                picture: RenderableType = ""
                for seen in looks:
                    if isinstance(seen, Stats):
                        picture = view(seen, server)
                        live.update(picture, refresh=True)
                    else:
                        live.update(Group(picture, "", _away(seen)), refresh=True)


def _looks(
    client: Client, model: str, period_s: float, timeout_s: float | None
) -> Generator[Stats | Unavailable, None, None]:
    """Yield what is seen, or why nothing is that was seen before.

    A front-end ends each connection after an hour, and may be started again meanwhile.
    """
    ends_at = None if timeout_s is None else time.monotonic() + timeout_s
    was_seen = False
    while True:
        left_s = None if ends_at is None else max(0.0, ends_at - time.monotonic())
        is_seen = False
        try:
            with closing(
                client.admin.watch_stats(model, period_s=period_s, timeout_s=left_s)
            ) as shown:
                for stats in shown:
                    was_seen = is_seen = True
                    yield stats
            return
        except Unavailable as error:
            if not was_seen:
                raise
            if not is_seen:
                yield error
        time.sleep(AGAIN_S)


def _away(error: Unavailable) -> Text:
    what = "The server is away" if isinstance(error, Unreachable) else printable(error.message)
    return Text(f"{what}; it is asked again and again.", style="red")


def _print(stats: Stats, *, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(stats), "time": rfc3339(stats.time)})
    elif sys.stdout.isatty():
        console().print(view(stats, ""))
    else:
        print_table(view(stats, ""))


def view(stats: Stats, server: str) -> RenderableType:
    """Return the picture of one look.

    Args:
        stats: what was seen.
        server: address of the server; empty: not shown.
    """
    heading = Text("despacho", style="bold")
    heading.append(
        f"  {server}  {_count(stats.servers, 'server')}"
        f"  {stats.time.astimezone():%H:%M:%S}  over {stats.window_s:.0f} s",
        style="not bold dim",
    )
    parts: list[RenderableType] = [heading]
    if not stats.models:
        parts.append(Text("No model was ever served here: start a worker."))
    for model in stats.models:
        parts += [Text(), *_model(model)]
    if stats.failures:
        parts += [Text(), Text.assemble("failed otherwise  ", _failures(stats.failures))]
    return Group(*parts)


def _model(model: ModelStats) -> list[RenderableType]:
    heading = Text(printable(model.model), style="bold cyan")
    heading.append(f"  {model.images_per_s:.1f} images/s", style="not bold default")
    heading.append(f"  {_latency(model.latency)}", style="not bold default")
    lines: list[RenderableType] = [heading]
    if model.failures:
        lines.append(Text.assemble("  failed  ", _failures(model.failures)))
    lines += [_queues(model.queues, model.queued_bytes), _workers(model.workers)]
    return lines


def _latency(latency: Latency) -> str:
    if latency.p50_s is None or latency.p90_s is None or latency.p99_s is None:
        return "no answers"
    shares = {"p50": latency.p50_s, "p90": latency.p90_s, "p99": latency.p99_s}
    return "  ".join(f"{name} {_duration(seconds)}" for name, seconds in shares.items())


def _queues(queues: tuple[Queue, ...], size_bytes: int) -> RenderableType:
    table = Table("queue", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in ("waiting", "claimed", "oldest"):
        table.add_column(heading, justify="right")
    for queue in queues:
        is_empty = queue.waiting == queue.claimed == 0
        table.add_row(
            printable(queue.name),
            str(queue.waiting),
            str(queue.claimed),
            "-" if is_empty else _duration(queue.oldest_age_s),
            style="dim" if is_empty else "",
        )
    if size_bytes:
        table.add_row(f"{size_bytes / MIB:.1f} MiB held", style="dim")
    return _indented(table)


def _workers(workers: tuple[Worker, ...]) -> RenderableType:
    if not workers:
        return Text("  no worker is alive", style="red")
    table = Table("worker", "version", "state", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in ("in hand", "images/s", "batch", "busy"):
        table.add_column(heading, justify="right")
    for worker in workers:
        table.add_row(
            Text(printable(worker.name)),
            Text(printable(worker.model_version)),
            "ready" if worker.ready else Text("loading", style="yellow"),
            str(worker.in_hand),
            f"{worker.images_per_s:.1f}",
            f"{worker.mean_batch_size:.1f}" if worker.mean_batch_size else "-",
            f"{worker.busy:.0%}",
        )
    return _indented(table)


def _indented(table: Table) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row("", table)
    return grid


def _failures(failures: Mapping[str, int]) -> Text:
    listed = ", ".join(f"{printable(reason)} {count}" for reason, count in failures.items())
    return Text(listed, style="yellow")


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:  # noqa: PLR2004 - of seconds a person has an idea
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
