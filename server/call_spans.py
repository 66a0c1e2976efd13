"""The span of a call, named as the conventions of OpenTelemetry for RPCs say."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import grpc

if TYPE_CHECKING:
    # Only while somebody traces is it imported at all.
    from telemetry.tracing_sdk import Span, Tracer, Value

UNKNOWN_METHOD: Final = "_OTHER"
"""Name of the spans of methods that do not exist: callers could make up any number."""

_FAULTS: Final = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""What the conventions call an error of the server; the others are the caller's."""

_TOLD: Final = ("request_id", "model", "images", "failed_images")
"""Fields of the log line that the span has, too."""


def begin_call(tracer: "Tracer", method: str, *, parent: str) -> "Span":
    """Begin the span of a call.

    Args:
        tracer: makes it.
        method: full name, such as `/prediction.v1.PredictionService/Predict`.
        parent: the caller's trace context; empty if there is none.
    """
    service, _, name = method.lstrip("/").rpartition("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
    return tracer.begin(method.lstrip("/"), "server", attributes, parent=parent)


def end_call(span: "Span", status: grpc.StatusCode, line: Mapping[str, "Value"]) -> None:
    """End the span of a call.

    Args:
        span: of the call.
        status: how it ended.
        line: what the log says of it.
    """
    span.add(
        {
            "rpc.grpc.status_code": _NUMBERS[status],
            **{f"despacho.{name}": line[name] for name in _TOLD if line[name] != ""},
            **_client(str(line["peer"])),
        }
    )
    if status in _FAULTS:
        span.fail(str(line["reason"] or line["status"]))
    elif line["reason"]:
        span.add({"error.type": line["reason"]})
    if status is grpc.StatusCode.UNIMPLEMENTED:
        span.name(UNKNOWN_METHOD)
    span.end()


def _client(peer: str) -> dict[str, str | int]:
    address, _, port = peer.partition(":")[2].rpartition(":")
    if not port.isdigit():
        return {}  # a socket of this machine, or nobody knows
    return {"client.address": address.strip("[]"), "client.port": int(port)}


_NUMBERS: Final = {code: code.value[0] for code in grpc.StatusCode}
