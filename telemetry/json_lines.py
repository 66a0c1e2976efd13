"""JSON log lines of flat fields, at a quarter of what `structlog` takes for the same line.

For lines that are written for each call. All others go through `structlog`, which can
do more.
"""

import time
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Final

Value = str | int | float

MICROSECONDS: Final = 1_000_000


class JsonLines:
    """Makes lines that look like those that `telemetry.logs` configures."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        """Remember what each line begins with.

        Args:
            fields: what each line has.
        """
        self._begin = f"{{{_members(fields)}"
        self._second = 0
        self._second_text = ""

    def line(self, event: str, level: str, fields: Mapping[str, Value]) -> str:
        """Return one line.

        Args:
            event: what happened; like the names of fields, needs no escapes in JSON.
            level: how severe it is, such as `info`.
            fields: more of what it says, finite numbers and texts of any kind.
        """
        return (
            f'{self._begin}, {_members(fields)}, "event": "{event}", "level": "{level}",'
            f' "timestamp": "{self._now()}"}}'
        )

    def _now(self) -> str:
        """Return the time as `structlog` writes it: ISO 8601 in UTC, with microseconds."""
        now_us = time.time_ns() // 1000
        second, rest_us = divmod(now_us, MICROSECONDS)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{rest_us:06d}Z"


def _members(fields: Mapping[str, Value]) -> str:
    return ", ".join(
        # The list is quicker than a generator, and this is what each call pays for.
        [
            f'"{name}": {quoted(value) if isinstance(value, str) else value}'
            for name, value in fields.items()
        ]
    )
