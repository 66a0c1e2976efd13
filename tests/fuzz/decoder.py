"""The decoder alone, in a process of its own: `python -m tests.fuzz.decoder`.

    python -m tests.fuzz.decoder --seconds N --seed N [--replay BLOB] [--bombs]

Thousands of images a minute, each measured: time of the CPU, and memory at its peak.
Prints one JSON object. The image in hand is in LAST, should the process not survive it.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from dispatch.errors import InvalidImage
from tests.fuzz.bombs import BOMBS, bomb
from tests.fuzz.mutations import Picture, pictures
from tests.fuzz.trial import Finding, Tally, explore, replay
from tests.fuzz.verdict import OK, Answer, Wrong
from worker.decode import decode
from worker.model_spec import InputRule
from worker.settings import WorkerSettings

RULES: Final = (
    InputRule(width=224, height=224, resize="crop", crop_fraction=0.875),
    InputRule(width=224, height=224, resize="fit"),
    InputRule(width=224, height=224, resize="stretch"),
)
MAX_PIXELS: Final = WorkerSettings.model_fields["max_image_pixels"].default

SECONDS: Final = 10.0
"""Most of the CPU that one image may take."""

BYTES_PER_PIXEL: Final = 18
"""Most memory that one image may take, for each pixel that is allowed."""

MIB: Final = 1 << 20


def peak_bytes() -> int:
    """Return the most memory that this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def check(tally: Tally, last: Path, rules: Sequence[InputRule]) -> Callable[[Picture], None]:
    """Return what tries one image with some rules."""
    at_first = peak_bytes()

    def try_one(picture: Picture) -> None:
        last.write_bytes(picture.data)
        for rule in rules:
            began = time.thread_time()
            outcome = OK
            try:
                pixels = decode(picture.data, rule, max_pixels=MAX_PIXELS)
            except InvalidImage as error:
                outcome = error.reason
            else:
                if pixels.shape != (rule.height, rule.width, 3):
                    raise Wrong(f"{pixels.shape} pixels")
            took_s = time.thread_time() - began
            tally.note(Answer(outcome, took_s=took_s))
            if took_s > SECONDS:
                raise Wrong(f"{took_s:.1f} s of the CPU")
            if (grown := peak_bytes() - at_first) > BYTES_PER_PIXEL * MAX_PIXELS:
                raise Wrong(f"{grown / MIB:.0f} MiB of memory")

    return try_one


def main() -> int:
    """Try images for a while."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.decoder")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", default="")
    parser.add_argument(
        "--bombs", action="store_true", help="each bomb once, however long it takes"
    )
    arguments = parser.parse_args()
    tally = Tally("decoder")
    began = peak_bytes()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        last = Path(folder) / "LAST"
        try_one = check(tally, last, RULES)
        if arguments.replay:
            replay(tally, pictures(), try_one, blob=arguments.replay.encode())
        else:
            for name in BOMBS if arguments.bombs else ():
                try_bomb(tally, name, check(tally, last, RULES[:1]))
            ends_at = time.monotonic() + arguments.seconds
            explore(tally, pictures(), try_one, seed=arguments.seed, ends_at=ends_at)
    sys.stdout.write(json.dumps(report(tally, peak_bytes() - began)) + "\n")
    return 1 if tally.findings else 0


def try_bomb(tally: Tally, name: str, try_one: Callable[[Picture], None]) -> None:
    """Try a bomb; one that is found does not end the run."""
    tally.examples += 1
    try:
        try_one(Picture(bomb(name), f"bomb {name}"))
    except Exception as error:  # noqa: BLE001 - whatever the decoder raises is a finding
        tally.findings.append(Finding(tally.name, f"{type(error).__name__}: {error}", name))


def report(tally: Tally, grown_bytes: int) -> dict[str, Any]:
    """Return what the runner wants to know."""
    return {
        "examples": tally.examples,
        "answers": dict(tally.answers),
        "slowest_s": tally.slowest_s,
        "peak_mib": round(grown_bytes / MIB),
        "findings": [[each.what, each.example, each.replay] for each in tally.findings],
    }


if __name__ == "__main__":
    sys.exit(main())
