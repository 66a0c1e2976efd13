"""Which operations of a model have just ended, for those who wait for one."""

from typing import Final

from dispatch import keys
from dispatch.line import Line, checked

BLOCK_MS: Final = 2000
READ_COUNT: Final = 256
START: Final = b"0-0"


class DoneStream:
    """Read by one task, from its own cursor: reading consumes nothing."""

    def __init__(self, url: str, model: str) -> None:
        self._key = keys.done(model)
        self._line = Line(url, reply_timeout_s=BLOCK_MS / 1000 + 2)
        self._cursor = START

    async def open(self) -> None:
        """Begin with what ends from now on.

        Raises:
            BrokerUnavailable, OutcomeUnknown: try again.
        """
        # Not `$` in `read`: what ends between two reads would be missed.
        (last,) = await self._line.call(("XREVRANGE", self._key, "+", "-", "COUNT", 1))
        entries = checked(last)
        self._cursor = entries[0][0] if entries else START

    async def read(self) -> list[str]:
        """Return the ids of operations that have ended, waiting up to `BLOCK_MS` for one.

        Raises:
            BrokerUnavailable, OutcomeUnknown: open it again: a Redis that lost the stream
                may begin it with smaller ids.
        """
        (streams,) = await self._line.call(
            (
                *("XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MS),
                *("STREAMS", self._key, self._cursor),
            )
        )
        if not checked(streams):
            return []
        entries = streams[0][1]
        self._cursor = entries[-1][0]
        # What somebody else has written there is nobody's id, and no reason to fail.
        return [fields[1].decode(errors="replace") for _, fields in entries]

    async def aclose(self) -> None:
        """Close the connection."""
        await self._line.close()
