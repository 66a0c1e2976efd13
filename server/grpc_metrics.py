"""Calls by method and status, as gRPC servers everywhere count them.

Counted on the way of every call, so in plain numbers, which are read when the page is made.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from google.longrunning import operations_pb2
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from inference import grpc_predict_v2_pb2
from prediction.v1 import admin_pb2, prediction_pb2
from telemetry.metrics_catalogue import (
    CALL_EDGES_S,
    CALL_SECONDS,
    CALLS_HANDLED,
    CALLS_STARTED,
)
from telemetry.metrics_instruments import Labels, Values

FILES: Final[tuple[FileDescriptor, ...]] = tuple(
    module.DESCRIPTOR
    for module in (
        *(prediction_pb2, admin_pb2, operations_pb2, grpc_predict_v2_pb2),
        *(health_pb2, reflection_pb2, channelz_pb2),
    )
)
"""Those of all services at the port of the calls."""

UNKNOWN: Final = ("UNARY", "unknown", "unknown")
"""The labels of methods that are not there: callers can make up as many as they like."""

_TYPES: Final = {
    (False, False): "UNARY",
    (True, False): "CLIENT_STREAMING",
    (False, True): "SERVER_STREAMING",
    (True, True): "BIDI_STREAMING",
}


class _Method:
    """The numbers of one method."""

    __slots__ = ("buckets", "handled", "labels", "seconds", "started")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.started = 0
        self.handled = {"OK": 0}
        self.buckets = [0] * (len(CALL_EDGES_S) + 1)
        self.seconds = 0.0


class CallCounts:
    """Calls by method. Counted by one thread, read by any."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._methods = {
            f"/{service.full_name}/{method.name}": _Method(_labels(method))
            for file in FILES
            for service in file.services_by_name.values()
            for method in service.methods
        }
        self._unknown = _Method(UNKNOWN)

    def began(self, method: str) -> None:
        """Count a call that began.

        Args:
            method: its full name, such as `/prediction.v1.PredictionService/Predict`.
        """
        self._methods.get(method, self._unknown).started += 1

    def ended(self, method: str, code: str, seconds: float) -> None:
        """Count a call that ended.

        Args:
            method: as above.
            code: name of its status.
            seconds: how long it took.
        """
        counts = self._methods.get(method, self._unknown)
        handled = counts.handled
        handled[code] = handled.get(code, 0) + 1
        counts.buckets[bisect_left(CALL_EDGES_S, seconds)] += 1
        counts.seconds += seconds

    def started(self) -> Iterator[tuple[Labels, Values]]:
        """Return how many calls began."""
        for method in self._all():
            yield method.labels, (method.started,)

    def handled(self) -> Iterator[tuple[Labels, Values]]:
        """Return how many calls ended."""
        for method in self._all():
            for code, count in tuple(method.handled.items()):
                yield (*method.labels, code), (count,)

    def durations(self) -> Iterator[tuple[Labels, Values]]:
        """Return how long they took; of methods that were called."""
        for method in self._all():
            if method.started:
                yield method.labels, (*method.buckets, method.seconds)

    def _all(self) -> tuple[_Method, ...]:
        return (*self._methods.values(), self._unknown)


def _labels(method: MethodDescriptor) -> Labels:
    kind = _TYPES[method.client_streaming, method.server_streaming]
    return kind, method.containing_service.full_name, method.name


CALLS: Final = CallCounts()
"""Those of this process."""

CALLS_STARTED.add_source(CALLS.started)
CALLS_HANDLED.add_source(CALLS.handled)
CALL_SECONDS.add_source(CALLS.durations)
