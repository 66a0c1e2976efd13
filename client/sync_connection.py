"""What all methods of the synchronous client share: the channel, and how a call is made."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import grpc
from google.longrunning import operations_pb2_grpc  # type: ignore[import-untyped, unused-ignore]
from grpc_health.v1 import health_pb2_grpc

from prediction.v1 import admin_pb2_grpc, prediction_pb2_grpc

from . import channel
from .api_key import KeyedChannel
from .errors import Cancelled, Overloaded
from .interrupts import put_off
from .patience import Patience
from .status import translated

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class Connection:
    """A channel, and the services of a Despacho server on it.

    Args:
        target: as in `Client`.
        access: how to connect, and as whom.
        max_image_bytes: as in `Client`.
        over: as in `Client`.
    """

    def __init__(
        self,
        target: str,
        access: channel.Access,
        max_image_bytes: int,
        over: grpc.Channel | None,
    ) -> None:
        self.max_image_bytes = max_image_bytes
        self.patience: Callable[[float], Patience] = Patience
        """Makes the bookkeeping of one call's time."""

        # Checked before there is something to close.
        metadata = access.metadata(None if over else target)
        self._channel = over or _open(target, access, max_image_bytes)
        self._channel = cast("grpc.Channel", KeyedChannel(self._channel, metadata))
        self._closed = threading.Event()
        self.predictions = prediction_pb2_grpc.PredictionServiceStub(self._channel)
        self.operations = operations_pb2_grpc.OperationsStub(self._channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(self._channel)
        self.health = health_pb2_grpc.HealthStub(self._channel)

    def close(self) -> None:
        """Cancel calls in progress and disconnect. Harmless when repeated."""
        self._closed.set()
        self._channel.close()

    def call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[RequestT, ResponseT]",  # generic only as a type
        request: RequestT,
        *,
        timeout_s: float,
        request_id: str = "",
    ) -> ResponseT:
        """Make one call.

        Raises:
            DespachoError: one of its subclasses.
        """
        with translated(request_id):
            with self.beginning():
                call = method.future(request, timeout=timeout_s)
            try:
                with put_off(call.cancel):
                    return call.result()
            except grpc.FutureCancelledError as error:
                # Not an `RpcError`: by the server, or by `close` in another thread.
                raise Cancelled(
                    "the call was cancelled", code=grpc.StatusCode.CANCELLED, request_id=request_id
                ) from error
            except BaseException:
                # Such as Ctrl-C: let no worker compute what nobody waits for.
                call.cancel()
                raise

    def call_patiently(
        self,
        method: "grpc.UnaryUnaryMultiCallable[RequestT, ResponseT]",  # generic only as a type
        request: RequestT,
        *,
        timeout_s: float,
        request_id: str,
    ) -> ResponseT:
        """Make a call, again and again while the server is overloaded and there is time.

        Raises:
            DespachoError: one of its subclasses.
        """
        patience = self.patience(timeout_s)
        while True:
            try:
                return self.call(
                    method, request, timeout_s=patience.left_s(), request_id=request_id
                )
            except Overloaded as refusal:
                pause_s = patience.pause_s(refusal)
                if pause_s is None:
                    raise
            self.rest(pause_s)

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Begin a call inside: on a client that is open, and with Ctrl-C put off.

        Raises:
            Cancelled: `close` was called.
        """
        self._check_open()
        try:
            with put_off():
                yield
        except ValueError:
            # So says gRPC when the channel is closed, in another thread and just now.
            self._check_open()
            raise

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise channel.closed()

    def rest(self, pause_s: float) -> None:
        """Do nothing for a while.

        Raises:
            Cancelled: `close` was called in another thread.
        """
        if self._closed.wait(pause_s):
            raise channel.closed()


def _open(target: str, access: channel.Access, max_image_bytes: int) -> grpc.Channel:
    options = channel.options(target, max_image_bytes=max_image_bytes, access=access)
    if access.credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, access.credentials, options)
