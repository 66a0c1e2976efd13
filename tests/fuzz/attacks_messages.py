"""Any bytes to every method, in any order, with any metadata."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import grpc
from hypothesis import strategies as st

from prediction.v1 import prediction_pb2 as pb
from tests.fuzz.attacks import PATIENCE_S, Arena, attack
from tests.fuzz.attacks_images import OPEN, SERVICE, infer_request
from tests.fuzz.caller import CHANNEL, Manners, Method, call
from tests.fuzz.messages import messages
from tests.fuzz.verdict import CANCELLED, LATE, Wrong
from tests.worker_process import MODEL

MIB: Final = 1 << 20
IN_TIME: Final = 3.0
"""How late an answer may come behind a deadline of the caller's own."""

HASTE: Final = ("DEADLINE_EXCEEDED EXPIRED_IN_QUEUE", LATE, "UNAVAILABLE BROKER_UNAVAILABLE")
"""What a caller may get who gives too little time; the last if Redis had none to confirm."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One call."""

    path: str
    sent: tuple[bytes, ...]
    manners: Manners


def one_message(arena: Arena) -> st.SearchStrategy[Visit]:
    """Return calls with one message each, as most methods want it."""

    def visits(method: Method) -> st.SearchStrategy[Visit]:
        sent = messages(method.request).map(lambda message: (message,))
        return st.builds(Visit, st.just(method.path), sent, st.just(watching(method)))

    return st.sampled_from(arena.methods).flatmap(visits)


def watching(method: Method) -> Manners:
    """Return manners in which a method ends soon that may go on for ever."""
    return Manners(timeout_s=2.0 if method.answers_many or "Wait" in method.path else PATIENCE_S)


@attack("messages", "one message of random, odd or broken content to every method", one_message)
def one_each(arena: Arena, visit: Visit) -> None:
    """Send one message."""
    answer, _ = call(arena.channel, visit.path, visit.sent, visit.manners)
    arena.accept(answer, also=HASTE if visit.manners.timeout_s < PATIENCE_S else ())


def sequences(arena: Arena) -> st.SearchStrategy[Visit]:
    """Return calls with any number of messages, whatever the method wants, and hasty callers."""

    def visits(method: Method) -> st.SearchStrategy[Visit]:
        manners = st.builds(
            Manners,
            timeout_s=st.sampled_from((0.001, 0.02, 0.5, 2.0)),
            most_responses=st.sampled_from((1, 2, 10_000)),
            closes=st.booleans(),
        )
        sent = st.lists(messages(method.request), max_size=8).map(tuple)
        return st.builds(Visit, st.just(method.path), sent, manners)

    return st.sampled_from(arena.methods).flatmap(visits)


@attack("sequences", "none to eight messages to every method, hanging up, never ending", sequences)
def any_sequence(arena: Arena, visit: Visit) -> None:
    """Send some messages, and leave at some moment."""
    answer, _ = call(arena.channel, visit.path, visit.sent, visit.manners)
    within_s = visit.manners.timeout_s + IN_TIME
    hasty = (
        () if visit.manners.closes and visit.manners.timeout_s > 1 and not goes_on(visit) else HASTE
    )
    arena.accept(answer, also=(*hasty, CANCELLED), within_s=within_s)


def goes_on(visit: Visit) -> bool:
    """Say whether a method may go on although nothing more is sent."""
    return any(word in visit.path for word in ("Watch", "Wait"))


@dataclass(frozen=True, slots=True)
class Flood:
    """Many small messages in one stream."""

    path: str
    count: int
    size: int


def floods(arena: Arena) -> st.SearchStrategy[Flood]:
    """Return floods for every method that takes a stream."""
    paths = [method.path for method in arena.methods if method.sends_many]
    return st.builds(
        Flood, st.sampled_from(paths), st.sampled_from((500, 3_000)), st.sampled_from((0, 1, 30))
    )


@attack("tiny", "thousands of tiny messages in one stream", floods)
def tiny(arena: Arena, flood: Flood) -> None:
    """Send a flood."""
    sent = (b"\x0a" * flood.size for _ in range(flood.count))
    answer, _ = call(arena.channel, flood.path, sent, Manners(timeout_s=30))
    arena.accept(answer, within_s=30)


def metadata_of(arena: Arena) -> st.SearchStrategy[tuple[tuple[str, str | bytes], ...]]:
    """Return metadata that is large, much, binary, or pretends to be ours."""
    del arena
    keys = st.sampled_from(
        (
            *("x-request-id", "traceparent", "authorization", "x-api-key", "triton_grpc_error"),
            *("x-a-bin", "grpc-previous-rpc-attempts", "grpc-tags-bin", "user-agent", "cookie"),
        )
    )
    printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=50)
    value = st.one_of(printable, st.sampled_from(("x" * 5_000, "x" * 40_000, "00-" + "f" * 52)))

    def pair(key: str) -> st.SearchStrategy[tuple[str, str | bytes]]:
        binary = st.binary(max_size=9_000)
        return st.tuples(st.just(key), binary if key.endswith("-bin") else value)

    few = st.lists(keys.flatmap(pair), max_size=20).map(tuple)
    many = st.sampled_from((100, 2_000)).map(lambda n: tuple((f"k{i}", "v") for i in range(n)))
    return st.one_of(few, few, many)


@attack("metadata", "huge, numerous and binary metadata", metadata_of)
def metadata(arena: Arena, pairs: tuple[tuple[str, str | bytes], ...]) -> None:
    """Ask something simple with much around it."""
    manners = Manners(metadata=pairs)
    answer, _ = call(arena.channel, f"{SERVICE}/ListModels", [b""], manners)
    # More than SERVER_MAX_METADATA_BYTES is refused by gRPC, without a word or in its own words.
    arena.accept(answer, also=() if answer.text else ("RESOURCE_EXHAUSTED",))
    if answer.code == "RESOURCE_EXHAUSTED" and size_of(pairs) <= SMALL_METADATA_BYTES:
        raise Wrong(f"{size_of(pairs)} bytes of metadata were too many: {answer.text[:300]}")


SMALL_METADATA_BYTES: Final = 12_000
"""Metadata that is never refused for its size: there is some more in each call."""


def size_of(pairs: Iterable[tuple[str, str | bytes]]) -> int:
    """Return how large metadata is by the rules of HTTP/2."""
    return sum(len(key) + len(value) + 32 for key, value in pairs)


@dataclass(frozen=True, slots=True)
class Bulk:
    """A message that is large, or becomes so."""

    path: str
    field: int
    mib: int
    is_packed: bool
    is_crumbs: bool
    """Whether the field is there millions of times, each empty."""


def bulks(arena: Arena) -> st.SearchStrategy[Bulk]:
    """Return messages around and above the limit, plain and compressed, for every method."""
    paths = st.sampled_from([method.path for method in arena.methods])
    sizes = st.sampled_from((15, 17, 64))
    return st.builds(Bulk, paths, st.integers(1, 8), sizes, st.booleans(), st.booleans())


@cache
def zeros(mib: int, field: int) -> bytes:
    """Return a message with one field of so many zeros."""
    size = mib * MIB
    length = bytes([size >> shift & 0x7F | 0x80 for shift in (0, 7, 14, 21)]) + bytes([size >> 28])
    return bytes([field << 3 | 2]) + length + bytes(size)


@cache
def crumbs(mib: int, field: int) -> bytes:
    """Return a message with one field again and again, each time empty."""
    return bytes([field << 3 | 2, 0]) * (mib * MIB // 2)


@attack("bulk", "messages of 15 to 64 MiB, as they are and as gzip bombs", bulks)
def bulk(arena: Arena, load: Bulk) -> None:
    """Send much, or little that becomes much."""
    squeeze = grpc.Compression.Gzip if load.is_packed else grpc.Compression.NoCompression
    options = [*CHANNEL, ("grpc.default_compression_algorithm", squeeze)]
    with grpc.insecure_channel(arena.address, options=options) as channel:
        manners = Manners(timeout_s=60, most_responses=1)
        message = (crumbs if load.is_crumbs else zeros)(load.mib, load.field)
        answer, _ = call(channel, load.path, [message], manners)
    arena.accept(answer, also=(CANCELLED,), within_s=60)


@dataclass(frozen=True, slots=True)
class Endless:
    """A stream whose caller never comes to an end."""

    path: str
    seconds: float
    pause_s: float


def endless_streams(arena: Arena) -> st.SearchStrategy[Endless]:
    """Return streams that go on, with images or parts of one."""
    del arena
    paths = (f"{SERVICE}/PredictStream", f"{SERVICE}/PredictUpload", f"{OPEN}/ModelStreamInfer")
    return st.builds(
        Endless, st.sampled_from(paths), st.sampled_from((1.0, 2.0)), st.sampled_from((0.0, 0.1))
    )


@attack(
    "endless", "streams that do not end, as fast as can be or a byte now and then", endless_streams
)
def endless(arena: Arena, stream: Endless) -> None:
    """Send until the deadline, with a chunk of one byte after the other."""
    messages_: dict[str, list[bytes]] = {
        "PredictUpload": [
            pb.PredictUploadRequest(options=pb.UploadOptions(model=MODEL)).SerializeToString(),
            pb.PredictUploadRequest(chunk=b"\xff").SerializeToString(),
        ],
        "PredictStream": [pb.PredictStreamRequest().SerializeToString()],
        "ModelStreamInfer": [infer_request([b"BM"], raw=True).SerializeToString()],
    }
    parts = messages_[stream.path.rpartition("/")[2]]

    def sent() -> Iterator[bytes]:
        ends_at = time.monotonic() + stream.seconds + PATIENCE_S
        yield parts[0]
        while time.monotonic() < ends_at:
            yield parts[-1]
            if stream.pause_s:
                time.sleep(stream.pause_s)

    # More than can be answered until then: it is the deadline that has to end it.
    manners = Manners(timeout_s=stream.seconds, most_responses=1_000_000)
    answer, _ = call(arena.channel, stream.path, sent(), manners)
    arena.accept(answer, also=HASTE, within_s=stream.seconds + IN_TIME)
    if answer.name not in HASTE and not answer.reason:
        raise Wrong(f"a stream that goes on ended with {answer.name}")
