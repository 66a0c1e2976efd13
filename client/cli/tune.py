"""`despacho tune`: which engine runs a model fastest on this machine.

The only command that asks no server: what it measures is this machine. The worker does
the measuring, as a program of its own; here its table is printed.
"""

import importlib.util
import json
import subprocess
import sys
from typing import Any, Final

import click
from rich.table import Table
from rich.text import Text

from .exits import ExitCode, printable
from .options import EPILOG
from .printers import console, print_json, print_table

PROGRAM: Final = "worker.tune"

USAGE: Final = 2
"""Exit code of that program when the model or a setting is at fault."""

UNUSABLE: Final = 3
"""Exit code of that program when no engine can run the model, which its report explains."""


@click.command(epilog=EPILOG)
@click.argument("model")
@click.option("--bf16", is_flag=True, help="Measure OpenVINO in bf16, too, which is less exact.")
@click.option("--force", is_flag=True, help="Measure again what is known.")
@click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")
@click.pass_context
def tune(ctx: click.Context, *, model: str, bf16: bool, force: bool, as_json: bool) -> None:
    """Measure the engines that can run MODEL on this machine.

    MODEL is what WORKER_MODEL would be: `efficientnet-lite0`, `keras-applications:NAME`, or a
    model directory. Workers with WORKER_ENGINE=auto use what was measured.
    """
    if not _has_worker():
        raise click.ClickException(
            "this measures workers, and none is installed here: run it where workers run,"
            " in a checkout of Despacho"
        )
    flags = [flag for flag, is_set in (("--bf16", bf16), ("--force", force)) if is_set]
    # Its progress goes to standard error as it comes.
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-P", "-m", PROGRAM, "--json", *flags, "--", model],
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode not in {0, UNUSABLE}:
        is_ours = done.returncode == USAGE
        ctx.exit(ExitCode.BAD_INPUT if is_ours else ExitCode.SERVER_ERROR)
    report = json.loads(done.stdout)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if done.returncode:
        ctx.exit(ExitCode.SERVER_ERROR)


def _has_worker() -> bool:
    try:
        return importlib.util.find_spec(PROGRAM) is not None
    except ModuleNotFoundError:
        return False


def _print(report: dict[str, Any]) -> None:
    table = Table("", "engine", "version", "precision", box=None, pad_edge=False)
    for heading in ("processes", "threads", "batch", "images/s", "ms/image", "max difference"):
        table.add_column(heading, justify="right")
    table.add_column("same best", justify="right")
    for row in report["rows"]:
        found = row["agreement"]
        table.add_row(
            Text("*" if row["chosen"] else ""),
            Text(printable(row["engine"])),
            Text(printable(row["version"])),
            row["precision"],
            str(row["processes"]),
            str(row["threads"]),
            str(row["batch_size"]),
            f"{row['images_per_s']:.1f}",
            f"{row['ms_per_image']:.1f}",
            f"{found['max_difference']:.1e}" if found else "-",
            f"{found['same_best']:.0%}" if found else "-",
            style=_style(row),
        )
    print_table(table)
    output = console()
    for row in report["rows"]:
        if row["chosen"]:
            way = f"{row['processes']} x {row['threads']} threads"
            line = f"* {way}: {row['engine']}, {row['reason']}"
            output.print(Text(printable(line)), soft_wrap=True)
    for failure in report["failures"]:
        line = f"{failure['engine']} cannot be used: {failure['reason']}"
        output.print(Text(printable(line), style="red"), soft_wrap=True)


def _style(row: dict[str, Any]) -> str:
    if row["chosen"]:
        return "bold"
    return "" if row["acceptable"] else "dim"
