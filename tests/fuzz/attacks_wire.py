"""What no gRPC client would send: broken frames, lying requests, callers that dawdle or vanish."""

import base64
import gzip
import struct
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote

from google.rpc import status_pb2
from hpack import Encoder
from hypothesis import strategies as st

from prediction.v1 import prediction_pb2 as pb
from tests.fuzz import wire
from tests.fuzz.attacks import PATIENCE_S, Arena, attack
from tests.fuzz.attacks_images import SERVICE
from tests.fuzz.attacks_messages import HASTE
from tests.fuzz.caller import DETAILS, code_name, reason_of
from tests.fuzz.images import samples
from tests.fuzz.verdict import LATE, Answer, Wrong

PREDICT: Final = f"{SERVICE}/Predict"
STREAM: Final = f"{SERVICE}/PredictStream"
MIB: Final = 1 << 20

GRPCS_OWN: Final = (
    # Metadata that it cannot read.
    ("INTERNAL", "Error parsing '"),
    ("INTERNAL", "Illegal header key: "),
    ("INTERNAL", "Duplicate '"),
    # A message that is said to be packed, but not how, or is not packed so, or has a flag of no
    # meaning.
    ("INTERNAL", "Compression bit set but no encoding configured"),
    ("INTERNAL", "Decompression failed due to "),
    ("INTERNAL", "Bad GRPC frame type"),
)
"""Code and first words of what gRPC's core says by itself, before any code of ours runs."""

NO_STATUS: Final = ("reset", "goaway", "closed", "ended")
"""Ends of a call without a status: what there is to say when HTTP itself is violated."""


@dataclass(frozen=True, slots=True)
class Talk:
    """What is said on one connection, and how it is left."""

    parts: tuple[bytes, ...]
    greets: bool
    leaves: str


def frames() -> st.SearchStrategy[bytes]:
    """Return frames: any, and those that some server has stumbled over."""
    stream = st.sampled_from((0, 1, 2, 3, 5, 2**31 - 1))
    any_frame = st.builds(
        wire.frame, st.integers(0, 12), st.integers(0, 255), stream, st.binary(max_size=40)
    )
    good = Encoder().encode(wire.request_headers(PREDICT), huffman=False)
    opening = wire.frame(wire.HEADERS, wire.END_HEADERS, 1, good)
    unfinished = wire.frame(wire.HEADERS, 0, 1, good)
    special = st.sampled_from(
        (
            opening,
            unfinished,
            opening + wire.frame(wire.RST, 0, 1, bytes(4)),
            wire.frame(wire.CONTINUATION, 0, 1, b"\x00\x01a\x01b"),
            wire.frame(wire.PING, 0, 0, bytes(8)),
            wire.frame(wire.SETTINGS, 0, 0),
            wire.settings([(4, 2**32 - 1), (5, 1), (1, 2**32 - 1), (3, 0)]),
            wire.frame(wire.WINDOW, 0, 0, struct.pack(">I", 2**31 - 1)),
            wire.frame(wire.WINDOW, 0, 1, bytes(4)),
            wire.frame(wire.DATA, 0, 1),
            wire.frame(wire.DATA, 8, 1, b"\xff"),
            wire.frame(wire.HEADERS, wire.END_HEADERS, 1, b"\xff" * 30),
            wire.frame(wire.HEADERS, wire.END_HEADERS, 3, b"\x3f\xe1\xff\xff\xff\x7f"),
            b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
            wire.frame(2, 0, 1, bytes(5)),
            wire.frame(wire.GOAWAY, 0, 0, bytes(8)),
        )
    )
    some = st.one_of(any_frame, special, special, st.binary(max_size=60))
    return st.builds(lambda part, count: part * count, some, st.sampled_from((1, 1, 1, 20, 2_000)))


def talks(arena: Arena) -> st.SearchStrategy[Talk]:
    """Return talks that make no sense."""
    del arena
    parts = st.lists(frames(), min_size=1, max_size=8).map(tuple)
    leaves = st.sampled_from(("closes", "resets", "half-closes"))
    return st.builds(Talk, parts, st.sampled_from((True, True, False)), leaves)


@attack("frames", "broken HTTP/2 frames, floods of frames, and garbage on the socket", talks)
def broken_frames(arena: Arena, talk: Talk) -> None:
    """Say it, and leave; what must go on is everything else."""
    with wire.Wire(arena.address, timeout_s=2) as connection:
        if talk.greets:
            connection.greet()
        heard = all(connection.send(part) for part in talk.parts)
        if talk.leaves == "half-closes":
            connection.half_close()
            connection.outcome(1, within_s=0.05)
        elif talk.leaves == "resets":
            connection.reset()
    arena.tally.note(Answer("said it all" if heard else "was cut off"))


@dataclass(frozen=True, slots=True)
class Lie:
    """A request that is complete, and not what it says."""

    headers: tuple[wire.Header, ...] = ()
    without: tuple[str, ...] = ()
    path: str = PREDICT
    flag: int = 0
    length: int | None = None
    """What the prefix of the message says; None: the truth."""

    packed_mib: int = -1
    """Zeros that the content unpacks to; -1: it is a good image, and not packed."""

    tail: bytes = b""

    def body(self) -> bytes:
        """Return what is sent as data."""
        content = pb.PredictRequest(image=samples()["jpeg"]).SerializeToString()
        if self.packed_mib >= 0:
            content = gzip.compress(b"\x12" + bytes(self.packed_mib * MIB), 9)
        return wire.message(content, flag=self.flag, length=self.length) + self.tail


def lies(arena: Arena) -> st.SearchStrategy[Lie]:
    """Return requests with one or more lies."""
    del arena
    header = st.sampled_from(
        (
            *(("content-type", kind) for kind in ("text/html", "application/json", "", "x" * 99)),
            *(("content-type", f"application/grpc{end}") for end in ("+json", "-web", ";a", "x")),
            *(("grpc-encoding", name) for name in ("gzip", "deflate", "snappy", "", "\x00")),
            *(
                ("grpc-timeout", text)
                for text in ("0n", "-1S", "99999999H", "x", "1", "", "9" * 99)
            ),
            *((":method", method) for method in ("GET", "PUT", "", "x" * 99)),
            *(("te", "x"), (":scheme", "ftp"), (":authority", "\xff"), ("host", "a")),
            *(("x-request-id", "\xff\xfe"), ("x-bin", "!!!"), ("grpc-status", "0")),
            *(("Upper", "case"), ("a b", "c"), ("connection", "close"), ("content-length", "1")),
            *(("x-large", "x" * 15_000), ("x-larger", "x" * 70_000), ("grpc-accept-encoding", "x")),
        )
    )
    path = st.sampled_from(
        (PREDICT, STREAM, "/", "", "*", "/a/b/c", "/\xff/\x00", "/" + "x" * 9999)
    )
    return st.builds(
        Lie,
        headers=st.lists(header, max_size=3).map(tuple),
        without=st.lists(
            st.sampled_from((":path", ":method", ":scheme", "te", "content-type")), max_size=2
        ).map(tuple),
        path=path | st.just(PREDICT),
        flag=st.sampled_from((0, 0, 1, 2, 255)),
        length=st.none() | st.sampled_from((0, 1, 10_000, 16 * MIB, 2**31, 2**32 - 1)),
        packed_mib=st.sampled_from((-1, -1, 0, 20, 200)),
        tail=st.sampled_from((b"", b"", b"\x00", bytes(5), b"\xff" * 99)),
    )


@attack("lies", "complete requests with wrong headers, flags, lengths and packed bombs", lies)
def lying_requests(arena: Arena, lie: Lie) -> None:
    """Ask, say that this was all, and want to hear something."""
    with wire.Wire(arena.address) as connection:
        connection.greet()
        began = time.monotonic()
        headers = wire.request_headers(lie.path, *lie.headers, without=lie.without)
        connection.send(connection.headers(1, headers))
        for part in pieces(lie.body()):
            connection.send(part)
        connection.send(wire.frame(wire.DATA, wire.END_STREAM, 1))
        outcome = connection.outcome(1, within_s=PATIENCE_S)
        took_s = time.monotonic() - began
    if outcome.startswith("grpc "):
        answer = replace(status_of(connection.trailers), took_s=took_s, path=lie.path)
        arena.accept(answer, also=refusals(answer, lie))
        return
    arena.tally.note(Answer(outcome or "nothing", took_s=took_s))
    if outcome not in NO_STATUS and not outcome.startswith("http 4"):
        raise Wrong(f"{outcome or 'no answer'} after {took_s:.1f} s")


def status_of(trailers: Mapping[str, str]) -> Answer:
    """Return the status that the headers at the end of a call tell."""
    code = code_name(int(trailers["grpc-status"]))
    if details := trailers.get(DETAILS):
        packed = base64.b64decode(details + "=" * (-len(details) % 4))
        status = status_pb2.Status.FromString(packed)
        return Answer(code, reason_of(status), status.message)
    return Answer(code, "", unquote(trailers.get("grpc-message", "")))


def refusals(answer: Answer, lie: Lie) -> Collection[str]:
    """Return which answers without a reason this lie has asked for."""
    if answer.reason:
        return HASTE if is_hasty(lie) else ()
    asked = {code for code, start in GRPCS_OWN if answer.text.startswith(start)}
    if lie.path not in {PREDICT, STREAM}:
        asked.add("UNIMPLEMENTED")
    return asked | {LATE} if is_hasty(lie) else asked


def is_hasty(lie: Lie) -> bool:
    """Say whether it has a deadline, which may be none or long ago."""
    return any(name == "grpc-timeout" for name, _ in lie.headers)


def pieces(body: bytes) -> list[bytes]:
    """Return data in frames."""
    step = 16_000
    return [
        wire.frame(wire.DATA, 0, 1, body[start : start + step])
        for start in range(0, len(body), step)
    ]


@dataclass(frozen=True, slots=True)
class Dawdle:
    """Connections whose callers take their time."""

    connections: int
    streams: int
    """Calls on each."""

    reads: bool
    """Whether they would take an answer."""

    part: int
    """How much of the request they send, percent."""

    seconds: float
    leaves: str


def dawdles(arena: Arena) -> st.SearchStrategy[Dawdle]:
    """Return slow readers, slow writers, and many of them."""
    del arena
    return st.builds(
        Dawdle,
        st.sampled_from((1, 20, 200)),
        st.sampled_from((0, 1, 20)),
        st.booleans(),
        st.sampled_from((0, 3, 50, 99, 100)),
        st.sampled_from((0.0, 0.5, 1.5)),
        st.sampled_from(("closes", "resets")),
    )


@attack("slow", "crowds of callers that never read, or write a byte now and then", dawdles)
def slow(arena: Arena, dawdle: Dawdle) -> None:
    """Begin calls, dawdle, and leave; somebody well-behaved is looked at meanwhile."""
    body = wire.message(pb.PredictRequest(image=samples()["png"]).SerializeToString())
    sent = len(body) * dawdle.part // 100
    with ExitStack() as stack:
        crowd = []
        for _ in range(dawdle.connections):
            connection = stack.enter_context(wire.Wire(arena.address, timeout_s=5))
            connection.greet(() if dawdle.reads else [(wire.INITIAL_WINDOW, 0)])
            for stream in range(1, 2 * dawdle.streams, 2):
                connection.send(connection.headers(stream, wire.request_headers(PREDICT)))
                connection.send(wire.frame(wire.DATA, 0, stream, body[:sent]))
            crowd.append(connection)
        ends_at = time.monotonic() + dawdle.seconds
        at = sent
        while time.monotonic() < ends_at and at < len(body) - 1:
            for connection in crowd:
                for stream in range(1, 2 * dawdle.streams, 2):
                    connection.send(wire.frame(wire.DATA, 0, stream, body[at : at + 1]))
            at += 1
            time.sleep(0.05)
        if dawdle.leaves == "resets":
            for connection in crowd:
                connection.reset()
    arena.tally.note(Answer("left"))
