"""Calls any method with any bytes, and tells how it ended."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tests.fuzz.verdict import OK, Answer

GIVE_UP_S: Final = 20.0
"""The deadline of calls whose answer matters."""

DETAILS: Final = "grpc-status-details-bin"
"""The trailer with the whole status."""

CHANNEL: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC of the port."""

    path: str
    request: Any
    """Class of its request message."""

    response: Any
    """Class of its response message."""

    sends_many: bool
    answers_many: bool


@dataclass(frozen=True, slots=True)
class Manners:
    """How a caller behaves during a call."""

    timeout_s: float = GIVE_UP_S
    most_responses: int = 10_000
    """It hangs up after so many."""

    closes: bool = True
    """Whether it says that it has nothing more to send."""

    metadata: tuple[tuple[str, str | bytes], ...] = ()


def call(
    channel: grpc.Channel, path: str, requests: Iterable[bytes], manners: Manners = Manners()
) -> tuple[Answer, list[bytes]]:
    """Send bytes to a method as if it were a stream, which on the wire all are.

    Returns:
        How it ended, and the responses. Hanging up is `CANCELLED` in the end.
    """
    began = time.monotonic()
    method: Any = channel.stream_stream(path, None, None)
    responses: list[bytes] = []
    try:
        stream = method(
            _sent(requests, lingers_s=0.0 if manners.closes else manners.timeout_s + 0.5),
            timeout=manners.timeout_s,
            metadata=manners.metadata,
        )
        # What came before an error counts, too.
        responses.extend(itertools.islice(stream, manners.most_responses))
        if len(responses) == manners.most_responses:
            stream.cancel()
            answer = Answer("CANCELLED", text="hung up")
        else:
            answer = Answer(OK)
    except grpc.RpcError as error:
        answer = _answer(error)
    return replace(answer, took_s=time.monotonic() - began, path=path), responses


def _sent(requests: Iterable[bytes], *, lingers_s: float) -> Iterator[bytes]:
    yield from requests
    # Beyond the deadline, so that the end is not said before.
    time.sleep(lingers_s)


def _answer(error: Any) -> Answer:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS:
            status = status_pb2.Status.FromString(value)
            return Answer(error.code().name, reason_of(status), status.message)
    return Answer(error.code().name, "", error.details() or "")


def reason_of(status: status_pb2.Status) -> str:
    """Return the stable reason of a status; empty if it has none."""
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in status.details if detail.Unpack(info)), "")


def status_answer(status: status_pb2.Status) -> Answer:
    """Return the failure of one image among many as an answer."""
    return Answer(code_name(status.code), reason_of(status), status.message)


def code_name(number: int) -> str:
    """Return the name of a status by its number; that of one that there is not: its number."""
    names = {code.value[0]: code.name for code in grpc.StatusCode}
    return names.get(number, str(number))


def methods_of(channel: grpc.Channel) -> Sequence[Method]:
    """Return every method of every service that the port has, asked by reflection."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    found = []
    for name in sorted(database.get_services()):
        service = pool.FindServiceByName(name)
        found += [_method(name, method) for method in service.methods]
    return found


def _method(service: str, method: MethodDescriptor) -> Method:
    return Method(
        path=f"/{service}/{method.name}",
        request=GetMessageClass(method.input_type),
        response=GetMessageClass(method.output_type),
        sends_many=method.client_streaming,
        answers_many=method.server_streaming,
    )
