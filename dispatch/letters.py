"""The nouns of dead letters: what was set aside."""

import re
from dataclasses import dataclass
from typing import Final

from despacho.job.v1.job_pb2 import DeadLetter

START: Final = "0-0"
"""Before the first letter."""

_ID: Final = re.compile(r"(\d{1,20})-(\d{1,20})", re.ASCII)
_ID_PART_LIMIT: Final = 1 << 64


@dataclass(frozen=True, slots=True, eq=False)
class Letter:
    """One job that was set aside."""

    id: str
    content: DeadLetter
    size_bytes: int
    """What it counts for in the limit."""

    image: bytes | None = None
    """The encoded image, if it was asked for."""

    @property
    def set_aside_ms(self) -> int:
        """When it was set aside, milliseconds of Redis time."""
        return int(self.id.partition("-")[0])


@dataclass(frozen=True, slots=True)
class LetterPage:
    """Some letters of a model, the oldest first, without images."""

    letters: list[Letter]
    next_after: str | None
    """After which letter the next page begins; None: there is none."""


def is_letter_id(text: str) -> bool:
    """Say whether a letter can have this id."""
    match = _ID.fullmatch(text)
    return match is not None and all(int(part) < _ID_PART_LIMIT for part in match.groups())
