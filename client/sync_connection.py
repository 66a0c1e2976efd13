"""What all methods of the synchronous client share: the channel, and how a call is made."""

import queue
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar, cast

import grpc
from google.longrunning import operations_pb2_grpc  # type: ignore[import-untyped, unused-ignore]
from grpc_health.v1 import health_pb2_grpc

from prediction.v1 import admin_pb2_grpc, prediction_pb2_grpc

from . import channel
from .errors import Cancelled, DeadlineExceeded, DespachoError, Retryable
from .interrupts import Cancellation, Shelter
from .keyed_channel import KeyedChannel
from .patience import Patience
from .status import translated

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

_END: Final = object()
"""Comes after the last answer of a stream."""


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
        self._was_reached = False
        self.patience: Callable[[float], Patience] = Patience
        """Makes the bookkeeping of one call's time."""

        # Checked before there is something to close.
        metadata = access.metadata(None if over else target)
        self._channel = over or _open(target, access, max_image_bytes)
        self._channel = cast("grpc.Channel", KeyedChannel(self._channel, metadata))
        self._is_closed = False
        self._closing = queue.SimpleQueue[None]()
        """Wakes who rests."""

        self._shelter = Shelter()
        self.predictions = prediction_pb2_grpc.PredictionServiceStub(self._channel)
        self.operations = operations_pb2_grpc.OperationsStub(self._channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(self._channel)
        self.health = health_pb2_grpc.HealthStub(self._channel)

    def close(self) -> None:
        """Cancel calls in progress and disconnect. Harmless when repeated."""
        self._is_closed = True
        self._closing.put(None)
        self._shelter.run(self._channel.close)
        self._shelter.close()

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
        self._check_open()
        cancellation = Cancellation()

        def answer() -> ResponseT:
            with translated(request_id):
                call = self._begun(partial(method.future, request, timeout=timeout_s))
                cancellation.watch(call)
                try:
                    return cast(ResponseT, call.result())
                except grpc.FutureCancelledError as error:
                    # Not an `RpcError`: by the server, or by `close` in another thread.
                    raise Cancelled(
                        "the call was cancelled",
                        code=grpc.StatusCode.CANCELLED,
                        request_id=request_id,
                    ) from error
                except BaseException:
                    # Whatever ends this thread: let no worker compute what nobody waits for.
                    call.cancel()
                    raise
                finally:
                    cancellation.forget()

        try:
            response = self._shelter.run(answer, cancellation)
        except DespachoError as error:
            self._was_reached |= bool(error.reason)  # none but a server has one
            raise
        self._was_reached = True
        return response

    def call_patiently(
        self,
        method: "grpc.UnaryUnaryMultiCallable[RequestT, ResponseT]",  # generic only as a type
        request: RequestT,
        *,
        timeout_s: float,
        request_id: str,
    ) -> ResponseT:
        """Make a call, again and again while the server is away or overloaded and there is time.

        Raises:
            DespachoError: one of its subclasses.
        """
        patience = self.patience(timeout_s)
        while True:
            try:
                return self.call(
                    method, request, timeout_s=patience.left_s(), request_id=request_id
                )
            except DeadlineExceeded as late:
                patience.explain(late)
                raise
            except Retryable as refusal:
                pause_s = patience.pause_s(refusal, was_reached=self._was_reached)
                if pause_s is None:
                    raise
            self.rest(pause_s)

    def stream(
        self,
        method: Callable[..., Any],
        request: object,
        *,
        timeout_s: float | None,
    ) -> Generator[Any, None, None]:
        """Make a call, and yield its answers one by one; closing this cancels it.

        Raises:
            DespachoError: one of its subclasses.
        """
        self._check_open()
        cancellation = Cancellation()

        def begin() -> None:
            with translated():
                cancellation.watch(self._begun(partial(method, request, timeout=timeout_s)))

        def answer() -> Any:
            with translated():
                return next(cancellation.call, _END)

        def end() -> None:
            cancellation()
            cancellation.forget()

        try:
            self._shelter.run(begin, cancellation)
            while (response := self._shelter.run(answer, cancellation)) is not _END:
                self._was_reached = True
                yield response
        finally:
            self._shelter.run(end)

    def _begun(self, begin: Callable[[], Any]) -> Any:
        try:
            return begin()
        except ValueError:
            # So says gRPC when the channel is closed, in another thread and just now.
            self._check_open()
            raise

    def _check_open(self) -> None:
        """Raise `Cancelled` if `close` was called."""
        if self._is_closed:
            raise channel.closed()

    def rest(self, pause_s: float) -> None:
        """Do nothing for a while.

        Raises:
            Cancelled: `close` was called in another thread.
        """
        # Unlike an `Event`, it has no lock that an interrupt could leave taken.
        with suppress(queue.Empty):
            self._closing.get(timeout=pause_s)
            self._closing.put(None)  # for others who rest
        self._check_open()


def _open(target: str, access: channel.Access, max_image_bytes: int) -> grpc.Channel:
    options = channel.options(target, max_image_bytes=max_image_bytes, access=access)
    if access.credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, access.credentials, options)
