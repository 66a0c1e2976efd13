"""Attack the real system for a while, and see whether it minds: `python -m tests.fuzz`."""

import argparse
import random
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import uvloop

from tests.fuzz.attacks import ATTACKS
from tests.fuzz.report import text_report, write_markdown
from tests.fuzz.run import DECODER, Plan, fuzz
from tests.fuzz.worker import BREAKS

# Each of these puts its attacks on the list, in the order of the table.
for module in ("images", "messages", "wire", "gateway"):
    import_module(f"tests.fuzz.attacks_{module}")

RELIABILITY = Path(__file__).parents[2] / "docs" / "reliability.md"


def say(text: str) -> None:
    """Tell the person who waits."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def parsed() -> argparse.Namespace:
    """Return what the command line says."""
    names = [*ATTACKS, DECODER]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long (600)")
    parser.add_argument("--seed", type=int, help="the same one makes the same examples")
    parser.add_argument("--attack", action="append", choices=names, help="only these")
    parser.add_argument("--list", action="store_true", help="list the attacks")
    parser.add_argument("--replay", default="", help="an example that was found, of one --attack")
    parser.add_argument(
        "--break",
        dest="broken",
        default="",
        choices=[name for name in BREAKS if name],
        help="break the decoder on purpose: it must fail",
    )
    parser.add_argument(
        "--between",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="within which a good caller is answered between attacks (2); more on a busy machine",
    )
    parser.add_argument("--markdown", action="store_true", help="write docs/reliability.md")
    arguments = parser.parse_args()
    if arguments.replay and (arguments.attack is None or len(arguments.attack) != 1):
        parser.error("--replay needs one --attack")
    return arguments


def main() -> int:
    """Return 1 if anything was found."""
    arguments = parsed()
    if arguments.list:
        say("\n".join(f"{each.name:10} {each.what}" for each in ATTACKS.values()))
        return 0
    chosen = arguments.attack or [*ATTACKS, DECODER]
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    seconds = 0.0 if arguments.replay else arguments.seconds
    plan = Plan(
        seconds=seconds,
        seed=seed,
        attacks=[ATTACKS[name] for name in chosen if name in ATTACKS],
        with_decoder=DECODER in chosen,
        broken=arguments.broken,
        replay=arguments.replay,
        between_s=arguments.between,
    )
    say(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        result = uvloop.run(fuzz(plan, Path(folder), say))
    say(text_report(result, seconds=seconds, seed=seed))
    if arguments.markdown:
        write_markdown(RELIABILITY, result, seconds=seconds, seed=seed)
    return 1 if result.findings() else 0


if __name__ == "__main__":
    sys.exit(main())
