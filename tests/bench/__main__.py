"""Measure the real system beside its limits: `python -m tests.bench [SCENARIO…]`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from traceback import format_exception

import uvloop

from tests.bench import h2load
from tests.bench.bench import Options
from tests.bench.catalogue import SCENARIOS
from tests.bench.report import text_report
from tests.bench.results import Outcome, Results
from tests.bench.scenarios import NotMeasured, Scenario, run
from tests.processes import ROOT

DOCUMENT = ROOT / "docs" / "benchmarks.md"
FOLDER = ROOT / "docs" / "benchmarks"
KEPT = FOLDER / "results.json"


def say(text: str) -> None:
    """Tell the person who waits."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def run_all(
    scenarios: list[Scenario], options: Options, keep: Callable[[Outcome], None]
) -> tuple[list[Outcome], list[str]]:
    """Run scenarios one after the other; return what they found, and which failed.

    Args:
        scenarios: what to measure.
        options: how.
        keep: called after each, so that no later trouble takes it along.
    """
    outcomes, failures = [], []
    for chosen in scenarios:
        say(f"{chosen.name}: {chosen.title}")
        try:
            outcome = await run(chosen, options, say=say)
            keep(outcome)
            outcomes.append(outcome)
        except NotMeasured as reason:
            say(f"  not measured: {reason}")
        except Exception as error:  # noqa: BLE001 - the others are worth measuring all the same
            is_ours = isinstance(error, h2load.LoadFailed)
            say(f"  FAILED: {error if is_ours else ''.join(format_exception(error))}")
            failures.append(chosen.name)
    return outcomes, failures


def parser() -> argparse.ArgumentParser:
    """Return what the command line may say."""
    found = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    found.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help="all but the long ones, if none is named"
    )
    found.add_argument("--list", action="store_true", help="list the scenarios")
    found.add_argument("--rounds", type=int, default=5, help="of each comparison (5)")
    found.add_argument("--seconds", type=float, default=3, help="of each load (3)")
    found.add_argument("--minutes", type=float, default=10, help="of the scenario `soak` (10)")
    kept = found.add_mutually_exclusive_group()
    kept.add_argument("--json", type=Path, help="write the results to a file")
    kept.add_argument(
        "--markdown",
        action="store_true",
        help=f"keep the results in {KEPT.relative_to(ROOT)}, in place of earlier ones of the same"
        f" scenarios, and write {DOCUMENT.relative_to(ROOT)} and its plots from all that is kept",
    )
    found.add_argument(
        "--no-run", action="store_true", help="measure nothing; with --markdown: from what is kept"
    )
    return found


def chosen_by(arguments: argparse.Namespace, refuse: argparse.ArgumentParser) -> list[Scenario]:
    """Return which scenarios to run."""
    if unknown := sorted(set(arguments.scenarios) - SCENARIOS.keys()):
        refuse.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    if arguments.no_run:
        return []
    named = [SCENARIOS[name] for name in arguments.scenarios]
    return named or [each for each in SCENARIOS.values() if not each.is_long]


def main() -> int:
    """Return 1 when something was not answered as it should be, 2 when a program is missing.

    A target that is not reached is a result, not a failure.
    """
    command_line = parser()
    arguments = command_line.parse_args()
    if arguments.list:
        for each in SCENARIOS.values():
            say(f"{each.name:18}{each.title}{' (only when named)' if each.is_long else ''}")
        return 0
    scenarios = chosen_by(arguments, command_line)
    if any(each.needs_h2load for each in scenarios) and (problem := h2load.missing()):
        say(problem)
        return 2
    options = Options(arguments.rounds, arguments.seconds, arguments.minutes)
    path = KEPT if arguments.markdown else arguments.json
    # Read now: a file that is not ours is better noticed before than after a long run.
    kept = [Results.read(path) if arguments.markdown else Results()]

    def keep(outcome: Outcome) -> None:
        kept[0] = kept[0].with_outcomes([outcome])
        if path:
            kept[0].write(path)

    outcomes, failures = uvloop.run(run_all(scenarios, options, keep))
    say("\n" + text_report(outcomes))
    if arguments.markdown:
        # Only documents have plots.
        from tests.bench.document import write_document  # noqa: PLC0415

        write_document(DOCUMENT, FOLDER, kept[0])
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
