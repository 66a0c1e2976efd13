"""The list of attacks, and what each has at hand."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from hypothesis.strategies import SearchStrategy

from tests.fuzz.caller import CHANNEL, Method, methods_of
from tests.fuzz.trial import Tally
from tests.fuzz.verdict import Answer, judge

PATIENCE_S: Final = 15.0
"""How long an answer may take, on a machine that others use, too."""


@dataclass(slots=True)
class Arena:
    """The system under attack, as seen from outside."""

    address: str
    channel: grpc.Channel
    methods: Sequence[Method]
    web_address: str = ""
    """That of the REST gateway."""

    tally: Tally = field(default_factory=lambda: Tally(""))
    """That of the attack that is running."""

    @classmethod
    def at(cls, address: str, web_address: str) -> "Arena":
        """Look around at the addresses of a front-end and of a gateway."""
        channel = grpc.insecure_channel(address, options=CHANNEL)
        return cls(address, channel, methods_of(channel), web_address)

    def accept(
        self, answer: Answer, *, also: Collection[str] = (), within_s: float = PATIENCE_S
    ) -> None:
        """Count an answer, and look whether it is one that there may be; see `judge`.

        Raises:
            Wrong: it is not.
        """
        self.tally.note(answer)
        judge(answer, also=also, within_s=within_s)


@dataclass(frozen=True, slots=True)
class Attack:
    """One way to be a nuisance."""

    name: str
    what: str
    examples: Callable[[Arena], SearchStrategy[Any]]
    check: Callable[[Arena, Any], None]


ATTACKS: Final[dict[str, Attack]] = {}


def attack(
    name: str, what: str, examples: Callable[[Arena], SearchStrategy[Any]]
) -> Callable[[Callable[[Arena, Any], None]], Callable[[Arena, Any], None]]:
    """Put an attack on the list; the function tries one example, and raises if that is a finding.

    Args:
        name: what `--attack` calls it.
        what: for the report.
        examples: makes the strategy.
    """

    def add(check: Callable[[Arena, Any], None]) -> Callable[[Arena, Any], None]:
        ATTACKS[name] = Attack(name, what, examples, check)
        return check

    return add
