"""Every way in which a caller can ask, and what it is told when it cannot have that.

Of each way the outcome is a failed call, or the status of one image or operation
within a call that goes well, or what the Python client raised.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeAlias

import grpc
import pytest
from google.longrunning.operations_pb2_grpc import OperationsStub
from google.rpc import status_pb2

from client import AsyncClient, Client, DespachoError
from client.patience import Patience
from prediction.v1 import prediction_pb2 as pb
from prediction.v1.admin_pb2_grpc import AdminServiceStub
from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from tests.credentials import bearer

Told: TypeAlias = grpc.RpcError | status_pb2.Status | DespachoError

REQUEST_ID: Final = "asked-by-a-test"
LIMIT_S: Final = 30.0
WITHOUT_RETRIES: Final = [("grpc.enable_retries", 0)]


class Caller:
    """One caller of a front-end, by stubs and by the clients; nothing is tried again by itself.

    What is sent by stubs as a stream is sent from threads: when a server refuses one that is still
    being sent, asyncio's gRPC may lose what it says (https://github.com/grpc/grpc/issues/36066).
    The asyncio client knows how to find it again.
    """

    def __init__(self, address: str, key: str) -> None:
        self._metadata = (*(bearer(key) if key else ()), ("x-request-id", REQUEST_ID))
        self._channel = grpc.aio.insecure_channel(address, options=WITHOUT_RETRIES)
        self.predictions: Any = PredictionServiceStub(self._channel)
        self.operations: Any = OperationsStub(self._channel)
        self.admin: Any = AdminServiceStub(self._channel)
        own_channel = grpc.aio.insecure_channel(address, options=WITHOUT_RETRIES)
        self.client = AsyncClient(over=own_channel, api_key=key)
        self.client._connection.patience = impatient
        self._threads_channel = grpc.insecure_channel(address, options=WITHOUT_RETRIES)
        self._threads_stub: Any = PredictionServiceStub(self._threads_channel)
        own_channel_of_threads = grpc.insecure_channel(address, options=WITHOUT_RETRIES)
        self._threads_client = Client(over=own_channel_of_threads, api_key=key)

    async def close(self) -> None:
        """Disconnect."""
        self._threads_client.close()
        self._threads_channel.close()
        await self.client.close()
        await self._channel.close()

    def begin(self, method: Any, request: Any) -> Any:
        """Begin a call."""
        return method(request, metadata=self._metadata, timeout=LIMIT_S)

    async def refusal(self, method: Any, request: Any) -> Told:
        """Make a call that fails."""
        with pytest.raises(grpc.RpcError) as caught:
            await self.begin(method, request)
        return caught.value

    async def by_call(self, request: pb.PredictRequest) -> Told:
        """Ask with `Predict`."""
        return await self.refusal(self.predictions.Predict, request)

    async def by_upload(self, request: pb.PredictRequest) -> Told:
        """Ask with `PredictUpload`."""
        return await asyncio.to_thread(self._upload, request)

    def _upload(self, request: pb.PredictRequest) -> Told:
        with pytest.raises(grpc.RpcError) as caught:
            self.begin(self._threads_stub.PredictUpload, upload_of(request))
        return caught.value

    async def by_stream(self, request: pb.PredictRequest) -> Told:
        """Ask with `PredictStream`."""
        return await asyncio.to_thread(self._stream, request)

    def _stream(self, request: pb.PredictRequest) -> Told:
        requests = iter([pb.PredictStreamRequest(request=request)])
        try:
            (response,) = self.begin(self._threads_stub.PredictStream, requests)
        except grpc.RpcError as error:
            return error
        return failure_of(response)

    async def by_batch(self, request: pb.PredictRequest) -> Told:
        """Ask with `PredictBatch`."""
        batch = pb.PredictBatchRequest(
            model=request.model, images=[pb.BatchImage(image=request.image)], top_k=request.top_k
        )
        call = self.begin(self.predictions.PredictBatch, batch)
        try:
            (response,) = [response async for response in call]
        except grpc.RpcError as error:
            return error
        return failure_of(response)

    async def by_client(self, request: pb.PredictRequest) -> Told:
        """Ask with `predict` of the asyncio client."""
        return await raised_by(
            self.client.predict(
                request.image, model=request.model, top_k=request.top_k, timeout_s=LIMIT_S
            )
        )

    async def by_upload_of_async_client(self, request: pb.PredictRequest) -> Told:
        """Ask with `predict_upload` of the asyncio client."""
        chunks = [request.image]
        return await raised_by(
            self.client.predict_upload(chunks, model=request.model, top_k=request.top_k)
        )

    async def by_stream_of_async_client(self, request: pb.PredictRequest) -> Told:
        """Ask with `predict_stream` of the asyncio client."""
        images = [(REQUEST_ID, request.image)]

        async def answer() -> None:
            async for outcome in self.client.predict_stream(
                images, model=request.model, top_k=request.top_k
            ):
                outcome.unwrap()

        return await raised_by(answer())

    async def by_upload_of_client(self, request: pb.PredictRequest) -> Told:
        """Ask with `predict_upload` of the client."""
        upload = partial(self._threads_client.predict_upload, [request.image])
        return await raised_by(asyncio.to_thread(upload, model=request.model, top_k=request.top_k))

    async def by_stream_of_client(self, request: pb.PredictRequest) -> Told:
        """Ask with `predict_stream` of the client."""
        stream = partial(self._threads_client.predict_stream, [(REQUEST_ID, request.image)])

        def answer() -> None:
            for outcome in stream(model=request.model, top_k=request.top_k):
                outcome.unwrap()

        return await raised_by(asyncio.to_thread(answer))

    async def by_all(self, request: pb.PredictRequest) -> list[Told]:
        """Ask in each way for the labels of an image, at the same time."""
        ways: list[Callable[[pb.PredictRequest], Awaitable[Told]]] = [
            self.by_call,
            self.by_upload,
            self.by_stream,
            self.by_batch,
            self.by_client,
            self.by_upload_of_async_client,
            self.by_stream_of_async_client,
            self.by_upload_of_client,
            self.by_stream_of_client,
        ]
        return await asyncio.gather(*(way(request) for way in ways))


@asynccontextmanager
async def caller_of(address: str, key: str) -> AsyncIterator[Caller]:
    """Connect, and disconnect in the end."""
    caller = Caller(address, key)
    try:
        yield caller
    finally:
        await caller.close()


def upload_of(request: pb.PredictRequest) -> Iterator[pb.PredictUploadRequest]:
    """Yield the parts of an upload."""
    options = pb.UploadOptions(model=request.model, top_k=request.top_k)
    yield pb.PredictUploadRequest(options=options)
    if request.image:
        yield pb.PredictUploadRequest(chunk=request.image)


def impatient(timeout_s: float) -> Patience:
    """Never wait until an overloaded server has room."""
    return Patience(timeout_s, uniform=lambda *_: math.inf)


def failure_of(response: Any) -> status_pb2.Status:
    """Return why the one image of a call failed."""
    failure: status_pb2.Status = response.failure
    return failure


async def raised_by(call: Awaitable[object]) -> DespachoError:
    """Return what the client raises."""
    with pytest.raises(DespachoError) as caught:
        await call
    return caught.value
