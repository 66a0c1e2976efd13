"""The list of rows, and how one is run."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.report import Result
from tests.chaos.rig import Options, Rig
from tests.redis_server import RedisServer

ROW_S: Final = 150.0
"""No row takes longer."""

Body = Callable[[Rig], Awaitable[None]]


class NotRun(Exception):
    """Something that the row needs is not here."""


class NotJudged(Exception):
    """The row was run, and what it measured says nothing; its books still count."""


@dataclass(frozen=True, slots=True)
class Row:
    """One fault."""

    name: str
    fault: str
    body: Body


ROWS: Final[dict[str, Row]] = {}


def row(name: str, fault: str) -> Callable[[Body], Body]:
    """Put a row on the list.

    Args:
        name: what `make chaos ROW=` calls it.
        fault: what happens to whom.
    """

    def add(body: Body) -> Body:
        ROWS[name] = Row(name, fault, body)
        return body

    return add


async def run(chosen: Row, options: Options, *, say: Callable[[str], None]) -> Result:
    """Run one row on a system of its own."""
    result = Result(chosen.name, chosen.fault)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        async with Rig(RedisServer(folder), folder, options) as rig:
            try:
                async with asyncio.timeout(ROW_S):
                    try:
                        await chosen.body(rig)
                    except NotJudged as reason:
                        result.not_run = f"not judged: {reason}"
                    books = await rig.books()
            except NotRun as reason:
                result.not_run = f"not run: {reason}"
                return result
            except Exception as error:  # noqa: BLE001 - a row that breaks is a row that failed
                rig.failures.append(f"{type(error).__name__}: {error}")
            else:
                result.accepted, result.answered = books.accepted, books.answered
                result.lost, result.duplicated = books.lost, books.duplicated
                rig.failures += books.faults
                if rig.failures:
                    result.not_run = ""
            result.injected, result.recovery_s = rig.injected, rig.recovery_s
            result.failures = rig.failures
            if rig.failures:
                say(rig.logs(lines=6))
    result.took_s = time.monotonic() - began
    return result
