"""Break the real system on purpose, and count: `python -m tests.chaos [ROW…]`."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

import uvloop

from tests.chaos.report import Result, text_table, write_markdown
from tests.chaos.rig import Options
from tests.chaos.rows import ROWS, Row, run
from tests.chaos.worker import BREAKS

# Each of these puts its rows on the list, in the order of the table.
MODULES = ("worker", "broker", "front_end", "operations", "load", "model")
for module in MODULES:
    import_module(f"tests.chaos.rows_{module}")

RELIABILITY = Path(__file__).parents[2] / "docs" / "reliability.md"


def say(text: str) -> None:
    """Tell the person who waits."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def run_all(rows: list[Row], options: Options) -> list[Result]:
    """Run rows one after the other; with something broken on purpose, until one is red."""
    results = []
    for chosen in rows:
        result = await run(chosen, options, say=say)
        say(result.line())
        for failure in result.failures:
            say(f"        {failure}")
        results.append(result)
        if options.broken and result.failures:
            break
    return results


def main() -> int:
    """Return 1 when a row failed, 2 when one that `--strict` wants was not run."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="all, if none is named")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--quick", action="store_true", help="smaller crowds, shorter loads")
    parser.add_argument(
        "--break",
        dest="broken",
        default="",
        choices=[name for name in BREAKS if name],
        help="break a promise on purpose: it must fail",
    )
    parser.add_argument("--strict", action="store_true", help="fail if a row cannot be run here")
    parser.add_argument("--markdown", action="store_true", help="write docs/reliability.md")
    arguments = parser.parse_args()
    if arguments.list:
        say("\n".join(f"{each.name:22} {each.fault}" for each in ROWS.values()))
        return 0
    if unknown := sorted(set(arguments.rows) - ROWS.keys()):
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    chosen = [ROWS[name] for name in arguments.rows] or list(ROWS.values())
    options = Options(is_quick=arguments.quick, broken=arguments.broken)
    results = uvloop.run(run_all(chosen, options))
    say("\n" + text_table(results))
    if arguments.markdown:
        write_markdown(RELIABILITY, results)
    if any(result.failures for result in results):
        return 1
    return 2 if arguments.strict and any(result.not_run for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
