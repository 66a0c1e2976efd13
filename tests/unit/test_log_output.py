"""Log lines that share a write."""

import asyncio
import io

from server.log_output import BatchingLogger


class CountingStream(io.StringIO):
    """Notes what each flush has written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.has_grown = asyncio.Event()

    def flush(self) -> None:
        self.writes.append(self.getvalue())
        self.seek(0)
        self.truncate()
        self.has_grown.set()


async def test_lines_of_one_moment_are_written_together() -> None:
    stream = CountingStream()
    log = BatchingLogger(stream)
    log.info("first")
    log.debug("second")
    assert stream.writes == []
    await asyncio.wait_for(stream.has_grown.wait(), 10)
    assert stream.writes == ["first\nsecond\n"]


async def test_a_warning_is_written_at_once_and_not_before_what_led_to_it() -> None:
    stream = CountingStream()
    log = BatchingLogger(stream)
    log.info("call")
    log.error("broken")
    assert stream.writes == ["call\nbroken\n"]


def test_without_a_loop_nothing_waits() -> None:
    stream = CountingStream()
    BatchingLogger(stream).info("starting")
    assert stream.writes == ["starting\n"]


class BrokenStream(io.StringIO):
    """Nobody reads it."""

    def flush(self) -> None:
        raise BrokenPipeError


async def test_lines_that_nobody_reads_are_lost_and_nothing_else() -> None:
    stream = BrokenStream()
    log = BatchingLogger(stream)
    log.warning("broken")
    log.info("call")
    log.flush()
    assert stream.getvalue() == "broken\ncall\n"
