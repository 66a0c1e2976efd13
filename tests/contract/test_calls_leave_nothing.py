"""What a call held is free when it has ended, however it ended, without a garbage collection.

Collections are seldom in a front-end, and messages large: a ring of objects for each call is
as bad as a leak. So collections are switched off here, and what a last one finds is looked at.
"""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import CoroutineType, FrameType, TracebackType
from typing import Any

import pytest
from google.protobuf.message import Message

from dispatch import errors
from server.quota import Quota
from server.samples import Sample
from tests.credentials import Keys
from tests.front_end import LIMIT_S, FrontEnd, front_end
from tests.fuzz import wire
from tests.processes import ROOT
from tests.rude_caller import BAD, IMAGE, KINDS, MIB, SERVICE, SMALL

LARGE_BYTES = MIB // 4
CALL = {"_handle_exceptions", "_schedule_rpc_coro"}
"""What gRPC's tasks of a call run."""


@asynccontextmanager
async def caller(address: str, *api_key: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.rude_caller", address, *api_key),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


def say(process: asyncio.subprocess.Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n".encode())


@contextmanager
def garbage_kept() -> Iterator[list[Any]]:
    """Collect nothing while inside; on the way out, put what a collection finds into the list."""
    found: list[Any] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@contextmanager
def set_aside() -> Iterator[None]:
    """Let no collection look at what is there already, such as the rest of the tests."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def until_calls_ended() -> None:
    """Wait until no call is in the server, also not one that its caller has left."""
    async with asyncio.timeout(LIMIT_S):
        while calls := [
            task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") in CALL
        ]:
            await asyncio.wait(calls)
        await asyncio.sleep(0)  # the loop lets go of what it has just run


def left_behind(garbage: list[Any]) -> set[str]:
    """Return what no call may leave: messages and whatever is large, calls, frames of ours."""
    found = set()
    for each in garbage:
        name = type(each).__name__
        if name in {"RPCState", "_ServicerContext"} or isinstance(each, Message):
            found.add(name)
        if isinstance(each, FrameType | CoroutineType | TracebackType):
            found |= {f"{name} of {place}" for place in [place_of(each)] if "/server/" in place}
        found |= {
            f"{type(held).__name__} of {size_of(held) >> 10} KiB in a {name}"
            for held in gc.get_referents(each)
            if size_of(held) > LARGE_BYTES
        }
    return found


def large_messages() -> list[Message]:
    """Return those that are alive, such as in what a collection has only closed."""
    return [
        each
        for each in gc.get_objects()
        if isinstance(each, Message) and each.ByteSize() > LARGE_BYTES
    ]


def place_of(each: Any) -> str:
    frame = each.tb_frame if isinstance(each, TracebackType) else each
    code = frame.f_code if isinstance(frame, FrameType) else each.cr_code
    return f"{code.co_filename}:{code.co_qualname}"


def size_of(each: object) -> int:
    return len(each) if isinstance(each, bytes | bytearray | str) else 0


async def make(
    front: FrontEnd,
    process: asyncio.subprocess.Process,
    name: str,
    may_leave: asyncio.Event | None = None,
) -> str:
    """Let the caller make a call, and the server forget the images; return its code."""
    front.relay.failures[BAD] = errors.ImageUndecodable("the image is cut short")
    assert process.stdout is not None
    say(process, name)
    if KINDS[name].leaves:
        await front.relay.notice.until(
            lambda: any(each.image.startswith(b"hold") for each in front.relay.submitted)
        )
        if may_leave is not None:
            await asyncio.wait_for(may_leave.wait(), LIMIT_S)
        say(process, "leave")
    async with asyncio.timeout(LIMIT_S):
        code = (await process.stdout.readline()).decode().strip()
    await until_calls_ended()
    front.relay.failures.clear()
    front.relay.submitted.clear()
    front.relay.cancelled.clear()
    return code


async def left_by(
    front: FrontEnd,
    process: asyncio.subprocess.Process,
    name: str,
    may_leave: asyncio.Event | None = None,
) -> set[str]:
    """Return what a call leaves that the caller makes."""
    with garbage_kept() as garbage:
        assert await make(front, process, name, may_leave) == KINDS[name].code, name
        # gRPC has the last call in hand until the next one comes.
        assert await make(front, process, SMALL) == "OK"
    left = left_behind(garbage)
    garbage.clear()
    return left | ({"a message that is still alive"} if large_messages() else set())


async def test_a_call_leaves_nothing_behind_however_it_ends() -> None:
    left = {}
    async with front_end() as front, caller(front.address) as process:
        front.stats.seen = [Sample(0, 0, {}, {})]
        with set_aside():
            for name in KINDS:
                if what := await left_by(front, process, name):
                    left[name] = what
    assert not left


STREAMS_LEFT = ["stream, left with more", "infer stream, left with more"]


@pytest.mark.parametrize("name", STREAMS_LEFT)
async def test_a_stream_with_a_key_that_is_left_while_it_is_full_leaves_nothing_behind(
    name: str, tmp_path: Path
) -> None:
    keys = Keys(tmp_path / "keys.toml")
    key = keys.add("unlimited", "predict")
    # The server goes no further than the first message, which waits for its answer.
    async with (
        front_end(api_keys_file=str(keys.path), stream_window=1) as front,
        caller(front.address, key) as process,
    ):
        with set_aside():
            assert not await left_by(front, process, name)


@pytest.mark.parametrize("name", STREAMS_LEFT)
async def test_a_stream_that_is_left_while_a_message_waits_its_turn_leaves_nothing_behind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_its_turn = asyncio.Event()
    take_patiently = Quota.take_patiently

    async def take(quota: Quota) -> None:
        waits_its_turn.set()
        await take_patiently(quota)

    monkeypatch.setattr(Quota, "take_patiently", take)
    keys = Keys(tmp_path / "keys.toml")
    key = keys.add("slow", "predict", requests_per_s=1 / LIMIT_S)
    async with (
        front_end(api_keys_file=str(keys.path)) as front,
        caller(front.address, key) as process,
    ):
        with set_aside():
            assert not await left_by(front, process, name, waits_its_turn)


@pytest.mark.parametrize("ending", ["reset", "closed"])
async def test_a_call_that_is_cut_off_in_its_message_leaves_nothing_behind(ending: str) -> None:
    async with front_end() as front:
        with garbage_kept() as garbage:
            await asyncio.to_thread(cut_off, front.address, ending)
            await until_calls_ended()
    assert not left_behind(garbage)


def cut_off(address: str, ending: str) -> None:
    """Begin a message, and be gone."""
    with wire.Wire(address) as connection:
        connection.greet()
        connection.send(connection.headers(1, wire.request_headers(f"{SERVICE}/Predict")))
        begun = wire.message(IMAGE, length=4 * MIB)[:60_000]
        for start in range(0, len(begun), 16_000):
            connection.send(wire.frame(wire.DATA, 0, 1, begun[start : start + 16_000]))
        if ending == "reset":
            connection.reset()


def test_what_is_left_behind_is_seen() -> None:
    class Ring:
        def __init__(self) -> None:
            self.me = self
            self.image = IMAGE

    with garbage_kept() as garbage:
        Ring()
    assert left_behind(garbage) == {"bytes of 1024 KiB in a Ring"}
