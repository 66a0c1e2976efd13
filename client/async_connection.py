"""What all methods of the asyncio client share: the channel, and how a call is made."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeVar, cast

import grpc
from google.longrunning import operations_pb2_grpc  # type: ignore[import-untyped, unused-ignore]
from grpc_health.v1 import health_pb2_grpc

from prediction.v1 import admin_pb2_grpc, prediction_pb2_grpc

from . import channel
from .async_status import as_the_server_said
from .cancellation import cancelled_alone
from .errors import DeadlineExceeded, DespachoError, InternalError, Retryable
from .images import Image, load
from .keyed_channel import KeyedChannel
from .patience import Patience
from .status import translated

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class Connection:
    """A channel, and the services of a Despacho server on it.

    Args:
        target: as in `AsyncClient`.
        access: how to connect, and as whom.
        max_image_bytes: as in `AsyncClient`.
        over: as in `AsyncClient`.
    """

    def __init__(
        self,
        target: str,
        access: channel.Access,
        max_image_bytes: int,
        over: grpc.aio.Channel | None,
    ) -> None:
        self._target = target
        self._access = access
        # Checked here, and not at the first call.
        self._metadata = access.metadata(None if over else target)
        self._max_image_bytes = max_image_bytes
        self._over = over
        self._closed = asyncio.Event()
        self._channel: grpc.aio.Channel | None = None
        self._was_reached = False
        self.patience: Callable[[float], Patience] = Patience
        """Makes the bookkeeping of one call's time."""

    async def close(self) -> None:
        """Cancel calls in progress and disconnect. Harmless when repeated."""
        self._closed.set()
        # One that the caller gave is closed also if it was never used.
        opened = self._channel or self._over
        if opened is not None:
            await opened.close()

    @cached_property
    def predictions(self) -> "prediction_pb2_grpc.PredictionServiceAsyncStub":  # only a type
        """The public service."""
        return prediction_pb2_grpc.PredictionServiceStub(self._open_channel())

    @cached_property
    def operations(self) -> Any:
        """The standard service of long-running operations."""
        return operations_pb2_grpc.OperationsStub(self._open_channel())

    @cached_property
    def admin(self) -> "admin_pb2_grpc.AdminServiceAsyncStub":  # only a type
        """The service for operators."""
        return admin_pb2_grpc.AdminServiceStub(self._open_channel())

    @cached_property
    def health(self) -> Any:
        """The standard health service."""
        return health_pb2_grpc.HealthStub(self._open_channel())

    async def load(self, image: Image) -> bytes:
        """Return the encoded bytes of `image`, as `images.load` does."""
        if isinstance(image, bytes):
            return load(image, max_bytes=self._max_image_bytes)
        # Reading a file blocks, and the loop has other things to do.
        return await asyncio.to_thread(load, image, max_bytes=self._max_image_bytes)

    async def call(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT]",  # generic only as a type
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
        try:
            with cancelled_alone(request_id):
                call = method(request, timeout=timeout_s)
                with translated(request_id), as_the_server_said(call):
                    response = _readable(await call, request_id)
        except DespachoError as error:
            self._was_reached |= bool(error.reason)  # none but a server has one
            raise
        self._was_reached = True
        return response

    async def call_patiently(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT]",  # generic only as a type
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
                return await self.call(
                    method, request, timeout_s=patience.left_s(), request_id=request_id
                )
            except DeadlineExceeded as late:
                patience.explain(late)
                raise
            except Retryable as refusal:
                pause_s = patience.pause_s(refusal, was_reached=self._was_reached)
                if pause_s is None:
                    raise
            await self.rest(pause_s)

    async def stream(
        self,
        method: Callable[..., Any],
        request: object,
        *,
        timeout_s: float | None,
    ) -> AsyncGenerator[Any, None]:
        """Make a call, and yield its answers one by one; closing this cancels it.

        Raises:
            DespachoError: one of its subclasses.
        """
        self._check_open()
        call = method(request, timeout=timeout_s)
        try:
            with cancelled_alone(), translated(), as_the_server_said(call):
                async for answer in call:
                    self._was_reached = True
                    yield _readable(answer)
        finally:
            call.cancel()

    def _check_open(self) -> None:
        """Raise `Cancelled` if `close` was called."""
        if self._closed.is_set():
            raise channel.closed()

    async def rest(self, pause_s: float) -> None:
        """Do nothing for a while.

        Raises:
            Cancelled: `close` was called in another task.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._closed.wait()
                raise channel.closed()

    def _open_channel(self) -> grpc.aio.Channel:
        # A stub that is made of a closed channel reads memory that gRPC has freed (seen
        # with 1.85.1).
        self._check_open()
        if self._channel is None:
            # Not in `__init__`: a channel belongs to the loop it is made in, and
            # clients are often made before the loop runs.
            made = self._over or _open(self._target, self._access, self._max_image_bytes)
            self._channel = cast("grpc.aio.Channel", KeyedChannel(made, self._metadata))
        return self._channel


def _readable(answer: ResponseT | None, request_id: str = "") -> ResponseT:
    """Return `answer`, unless it is what gRPC for asyncio makes of bytes that it cannot parse.

    Raises:
        InternalError: it is.
    """
    if answer is None:
        raise InternalError(
            "the server's answer cannot be read",
            code=grpc.StatusCode.INTERNAL,
            request_id=request_id,
        )
    return answer


def _open(target: str, access: channel.Access, max_image_bytes: int) -> grpc.aio.Channel:
    options = channel.options(target, max_image_bytes=max_image_bytes, access=access)
    if access.credentials is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, access.credentials, options)
