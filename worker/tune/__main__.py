"""Measure the engines of a model: `python -m worker.tune MODEL`.

Prints the table, or with `--json` what `despacho tune` makes one of. Progress goes to
standard error.
"""

import argparse
import json
import sys
from typing import Any

from pydantic import ValidationError

from telemetry import logs
from telemetry.refusal import explained
from worker.machine import usable_cores
from worker.model_directory import open_model
from worker.model_spec import ModelError, ModelSpec
from worker.processes import environment_of_children, process_count
from worker.settings import WorkerSettings
from worker.tune import store
from worker.tune.auto import candidates_of, tuned
from worker.tune.choice import choose
from worker.tune.table import Mode, Row, Table, mode_of

REFUSED = 2
UNUSABLE = 3
"""Exit code if no engine can run the model; the report says why."""

COLUMNS = {
    "engine": "{:<12}",
    "version": "{:<12}",
    "precision": "{:<10}",
    "processes": "{:>9}",
    "threads": "{:>8}",
    "batch_size": "{:>11}",
    "images_per_s": "{:>13.1f}",
    "ms_per_image": "{:>13.1f}",
    "max_difference": "{:>15}",
    "same_best": "{:>10}",
}


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worker.tune", description=__doc__)
    parser.add_argument("model", help="as in WORKER_MODEL")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--bf16", action="store_true", help="OpenVINO in bf16, too")
    parser.add_argument("--force", action="store_true", help="measure again what is known")
    arguments = parser.parse_args()
    try:
        settings = WorkerSettings(model=arguments.model)
        logs.configure("tune", level=settings.log_level, log_format=settings.log_format)
        report = tune(settings, is_bf16=arguments.bf16, is_forced=arguments.force)
    except ValidationError as error:
        return _refuse(explained(error))
    except ModelError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"the cache cannot be written: {error}")
    sys.stdout.write(json.dumps(report) if arguments.json else as_text(report))
    sys.stdout.write("\n")
    return 0 if any(row["acceptable"] for row in report["rows"]) else UNUSABLE


def tune(settings: WorkerSettings, *, is_bf16: bool, is_forced: bool) -> dict[str, Any]:
    """Measure the ways in which a worker runs, as far as it was not done; return the report.

    Raises:
        ModelError: there is no such model, or it has no engines to choose from.
        OSError: the cache cannot be written.
    """
    precision = "bf16" if is_bf16 else settings.precision or None
    spec = open_model(settings.model, settings.cache_dir, engine="auto", precision=precision)
    if spec.engine == "null":
        raise ModelError(f"{spec.name}: the engine null has no model to measure")
    modes = modes_of(settings)
    table = tuned(spec, modes, settings.cache_dir, is_forced=is_forced)
    return report_of(spec, table, modes, str(store.path_of(spec, settings.cache_dir)))


def modes_of(settings: WorkerSettings) -> list[Mode]:
    """Return both common ways of running, and that of a worker with these settings."""
    count = process_count(settings)
    threads = settings.inference_threads
    if count > 1:
        children = environment_of_children({}, settings, cores=usable_cores(), count=count)
        threads = int(children["WORKER_INFERENCE_THREADS"])
    return [*dict.fromkeys([mode_of(1), mode_of(0), mode_of(threads)])]


def report_of(spec: ModelSpec, table: Table, modes: list[Mode], path: str) -> dict[str, Any]:
    """Return the table, with a mark on what a worker would choose in each mode."""
    candidates = candidates_of(spec)
    choices = [
        choice
        for mode in modes
        if (
            choice := choose(
                table, mode, max_batch_size=spec.default_batch_size, precision=spec.precision
            )
        )
    ]
    chosen = {id(choice.row): choice for choice in choices}
    rows = [row for row in table.rows if row.candidate in candidates and row.mode in modes]
    rows.sort(key=lambda row: (modes.index(row.mode), candidates.index(row.candidate)))
    return {
        "model": spec.name,
        "version": spec.version,
        "cores": usable_cores(),
        "path": path,
        "rows": [
            _fields(row, chosen[id(row)].reason if id(row) in chosen else None) for row in rows
        ],
        "failures": [
            {
                **failure.candidate.model_dump(),
                **failure.mode.model_dump(),
                "reason": failure.reason,
            }
            for failure in table.failures
            if failure.candidate in candidates and failure.mode in modes
        ],
    }


def as_text(report: dict[str, Any]) -> str:
    """Return the report for a person, without the packages that the client's table needs."""
    lines = ["  " + "".join(_heading(name, form) for name, form in COLUMNS.items())]
    for row in report["rows"]:
        mark = "* " if row["chosen"] else "  "
        values = {"max_difference": "-", "same_best": "-"} | row
        if found := row["agreement"]:
            values["max_difference"] = f"{found['max_difference']:.1e}"
            values["same_best"] = f"{found['same_best']:.0%}"
        lines.append(mark + "".join(form.format(values[name]) for name, form in COLUMNS.items()))
    lines += [f"* {row['engine']}: {row['reason']}" for row in report["rows"] if row["chosen"]]
    lines += [f"{one['engine']} failed: {one['reason']}" for one in report["failures"]]
    return "\n".join(lines)


def _heading(name: str, form: str) -> str:
    return form.replace(".1f", "").format(name)


def _fields(row: Row, reason: str | None) -> dict[str, Any]:
    return {
        **row.candidate.model_dump(),
        **row.mode.model_dump(),
        "batch_size": row.batch_size,
        "images_per_s": row.images_per_s,
        "ms_per_image": row.ms_per_image,
        "agreement": row.agreement and row.agreement.model_dump(),
        "acceptable": row.is_acceptable,
        "chosen": reason is not None,
        "reason": reason,
    }


def _refuse(text: str) -> int:
    print(f"tune: {text}", file=sys.stderr)  # noqa: T201 - one line for who started it
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
