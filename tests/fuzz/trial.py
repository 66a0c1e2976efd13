"""Tries examples of a strategy until the time is over; shrinks what fails, and says how to repeat.

Hypothesis makes the examples and shrinks them. It knows numbers of examples and no
time, so it is run for a few at a time, each time with the next seed.
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.strategies import SearchStrategy

from tests.fuzz.verdict import Answer, Wrong

FEW: Final = 25
"""Examples before the clock is looked at for a new seed."""

SHRINK_S: Final = 15.0
"""How long may be spent on making an example smaller."""

SHOWN: Final = 600
"""How much of an example is printed, characters."""

BLOB: Final = re.compile(r"reproduce_failure\([^,]+, (b['\"].*?['\"])\)")


@dataclass(slots=True)
class Finding:
    """Something that should never happen."""

    attack: str
    what: str
    example: str = ""
    replay: str = ""
    """What to hand to `--replay`; empty: it is no matter of one example."""

    def lines(self) -> list[str]:
        """Return it for a person."""
        lines = [f"{self.attack}: {self.what}"]
        if self.example:
            lines.append(f"    example: {self.example[:SHOWN]}")
        if self.replay:
            lines.append(
                f"    again: python -m tests.fuzz --attack {self.attack} --replay {self.replay}"
            )
        return lines


@dataclass(slots=True)
class Tally:
    """What came of one attack, over all rounds."""

    name: str
    examples: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def note(self, answer: Answer) -> None:
        """Count an answer."""
        self.answers[answer.name] += 1
        self.slowest_s = max(self.slowest_s, answer.took_s)


class _Body:
    """Tries one example; what failed once fails again without being tried again."""

    def __init__(
        self, tally: Tally, check: Callable[[Any], None], ends_at: float, *, skips: int = 0
    ) -> None:
        self._tally = tally
        self._skips = skips
        self._check = check
        self._ends_at = ends_at
        self._failed: dict[Any, Exception] = {}
        self.last: Any = None
        """The last example, which is the smallest that fails when all is over."""

    def run(self, prepare: Callable[[Callable[[Any], None]], Callable[[], None]]) -> bool:
        """Try what `prepare` makes of this; return whether all went well."""

        def test(example: Any) -> None:
            self._try(example)

        try:
            prepare(test)()
        except hypothesis.errors.DidNotReproduce:
            return True
        except Exception as error:  # noqa: BLE001 - whatever an example raises is a finding
            self._tally.findings.append(_finding(self._tally.name, error, self.last))
            return False
        return True

    def _try(self, example: Any) -> None:
        self.last = example
        if example in self._failed:
            raise self._failed[example]
        if self._skips or time.monotonic() > self._ends_at:
            self._skips = max(0, self._skips - 1)
            return
        self._tally.examples += 1
        try:
            self._check(example)
        except Exception as error:
            if not self._failed:
                self._ends_at = time.monotonic() + SHRINK_S
            self._failed[example] = error
            raise


def explore(
    tally: Tally,
    strategy: SearchStrategy[Any],
    check: Callable[[Any], None],
    *,
    seed: int,
    ends_at: float,
) -> None:
    """Try examples until `ends_at`, a moment of the monotonic clock, or until one fails.

    Args:
        tally: counts, and takes the finding.
        strategy: what to try; examples can be hashed.
        check: raises `Wrong`, or anything else, which counts as much.
        seed: the same one makes the same examples.
    """
    skips = 0
    while True:
        body = _Body(tally, check, ends_at, skips=skips)
        # The first one is always the simplest, such as an empty list of messages: once is enough.
        skips = 1
        run = hypothesis.seed(seed)
        went_well = body.run(lambda test: run(_settings(FEW)(given(strategy)(test))))  # noqa: B023 - called at once
        seed += 1
        if not went_well or time.monotonic() > ends_at:
            return


def replay(
    tally: Tally, strategy: SearchStrategy[Any], check: Callable[[Any], None], *, blob: bytes
) -> None:
    """Try one example again, as `Finding.replay` names it."""
    again = hypothesis.reproduce_failure(hypothesis.__version__, blob)
    body = _Body(tally, check, time.monotonic() + 3600)
    body.run(lambda test: again(_settings(1)(given(strategy)(test))))


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )


def _finding(attack: str, error: Exception, last: Any) -> Finding:
    notes = "\n".join(getattr(error, "__notes__", ()))
    blob = BLOB.search(notes)
    what = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
    return Finding(
        attack,
        what,
        example=repr(last),
        replay=blob[1][2:-1] if blob else "",
    )
