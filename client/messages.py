"""The methods of the contract with its own messages, for a program that passes them on.

`Client` speaks in values of its own and tries again by itself. A gateway does neither:
its callers see what the server said, at once, and decide by themselves.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar, cast

import grpc
from google.longrunning import (  # type: ignore[import-untyped, unused-ignore]
    operations_pb2,
    operations_pb2_grpc,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc

from prediction.v1 import admin_pb2, admin_pb2_grpc, prediction_pb2, prediction_pb2_grpc

from . import channel, operation_wire, stats_wire
from .api_key import Metadata
from .errors import Cancelled
from .limits import MAX_IMAGE_BYTES
from .status import translated

ResponseT = TypeVar("ResponseT")

RECONNECT_MS: Final = (100, 1000)
"""First and longest pause between attempts to connect. gRPC's own grow to two minutes."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a call is made."""

    timeout_s: float
    """Longest wait for the answer, seconds."""

    metadata: Metadata = field(default=(), repr=False)
    """Sent with the call: who calls, and in which trace."""


class Call(Generic[ResponseT]):
    """A call in progress.

    Args:
        future: that of gRPC.
        unpack: what is wanted of the response.
    """

    def __init__(self, future: Any, unpack: Callable[[Any], ResponseT]) -> None:
        self._future = future
        self._unpack = unpack
        self._ended = threading.Event()
        future.add_done_callback(lambda _: self._ended.set())

    @property
    def has_ended(self) -> bool:
        """Whether `result` would return or raise at once."""
        return self._ended.is_set()

    def wait(self, limit_s: float) -> bool:
        """Wait until the call has ended, or for `limit_s`; return whether it has."""
        return self._ended.wait(limit_s)

    def cancel(self) -> None:
        """Give the call up; harmless when it has ended."""
        self._future.cancel()

    def result(self) -> ResponseT:
        """Return the answer; waits for it.

        Raises:
            DespachoError: one of its subclasses.
        """
        with translated():
            try:
                return self._unpack(self._future.result())
            except grpc.FutureCancelledError as error:
                raise Cancelled("the call was cancelled", code=grpc.StatusCode.CANCELLED) from error


class StatsCall:
    """What the system does, again and again: to be iterated over once."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[admin_pb2.WatchStatsResponse]:
        """Yield what is seen, until somebody ends it.

        Raises:
            DespachoError: one of its subclasses; `Cancelled` after `cancel`.
        """
        with translated():
            yield from self._call

    def cancel(self) -> None:
        """End it; harmless when repeated."""
        self._call.cancel()


class _Line:
    """A channel, and what is called over it."""

    def __init__(self, opened: grpc.Channel) -> None:
        self.channel = opened
        self.predictions = prediction_pb2_grpc.PredictionServiceStub(opened)
        self.operations = operations_pb2_grpc.OperationsStub(opened)
        self.admin = admin_pb2_grpc.AdminServiceStub(opened)
        self.health = health_pb2_grpc.HealthStub(opened)


class Messages:
    """A connection to a Despacho server. May be used from several threads.

    Args:
        target: as in `Client`.
        credentials: as in `Client`.
        max_image_bytes: as in `Client`.
    """

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        max_image_bytes: int = MAX_IMAGE_BYTES,
    ) -> None:
        self._target = target
        self._max_image_bytes = max_image_bytes
        self._line = self._connect(credentials)

    def close(self) -> None:
        """Cancel calls in progress and disconnect. Harmless when repeated."""
        self._line.channel.close()

    def renew(
        self, credentials: grpc.ChannelCredentials, *, limit_s: float
    ) -> Callable[[], None] | None:
        """Connect with other credentials; calls that begin from then on go that way.

        Args:
            credentials: as in `Client`.
            limit_s: how long to wait for the server, seconds.

        Returns:
            What disconnects as before and cancels the calls that are still in progress there, to
            be called when there should be none. None: nothing has changed, as the server was not
            reached.
        """
        line = self._connect(credentials)
        try:
            grpc.channel_ready_future(line.channel).result(limit_s)
        except grpc.FutureTimeoutError:
            line.channel.close()
            return None
        before, self._line = self._line, line
        return before.channel.close

    def _connect(self, credentials: grpc.ChannelCredentials | None) -> "_Line":
        # The keys of callers go with each call, wherever the server is.
        access = channel.Access(credentials=credentials, api_key="", allow_insecure_key=True)
        options = _options(self._target, self._max_image_bytes, access)
        return _Line(
            grpc.insecure_channel(self._target, options)
            if credentials is None
            else grpc.secure_channel(self._target, credentials, options)
        )

    def predict(
        self, request: prediction_pb2.PredictRequest, terms: Terms
    ) -> Call[prediction_pb2.PredictResponse]:
        """Label one image."""
        return _begin(self._line.predictions.Predict, request, terms)

    def predict_upload(
        self, options: prediction_pb2.UploadOptions, chunks: Iterable[bytes], terms: Terms
    ) -> Call[prediction_pb2.PredictResponse]:
        """Label one image that is still on its way here.

        Args:
            options: what is wanted.
            chunks: read in another thread, which they may keep until they end, however
                the call does. One that raises cancels the call.
            terms: how.
        """

        def parts() -> Iterator[prediction_pb2.PredictUploadRequest]:
            yield prediction_pb2.PredictUploadRequest(options=options)
            for chunk in chunks:
                yield prediction_pb2.PredictUploadRequest(chunk=chunk)

        return _begin(
            self._line.predictions.PredictUpload, parts(), terms, lambda response: response.response
        )

    def submit(self, request: prediction_pb2.SubmitPredictionRequest, terms: Terms) -> Call[Any]:
        """Accept one image; its labels are fetched later. Answers an operation."""
        return _begin(self._line.predictions.SubmitPrediction, request, terms)

    def operation(self, name: str, terms: Terms) -> Call[Any]:
        """Look at an operation."""
        request = operations_pb2.GetOperationRequest(name=name)
        return _begin(self._line.operations.GetOperation, request, terms)

    def wait_operation(self, name: str, wait_s: float, terms: Terms) -> Call[Any]:
        """Wait until an operation has ended, for at most `wait_s`; answers it as it is then."""
        request = operation_wire.wait_request(name, wait_s)
        return _begin(self._line.operations.WaitOperation, request, terms)

    def delete_operation(self, name: str, terms: Terms) -> Call[None]:
        """Forget an operation and its result."""
        request = operations_pb2.DeleteOperationRequest(name=name)
        return _begin(self._line.operations.DeleteOperation, request, terms, lambda _: None)

    def list_models(self, terms: Terms) -> Call[prediction_pb2.ListModelsResponse]:
        """List what is served."""
        return _begin(self._line.predictions.ListModels, prediction_pb2.ListModelsRequest(), terms)

    def get_model(self, name: str, terms: Terms) -> Call[prediction_pb2.Model]:
        """Describe one model, with its labels."""
        request = prediction_pb2.GetModelRequest(name=name)
        return _begin(
            self._line.predictions.GetModel, request, terms, lambda response: response.model
        )

    def watch_stats(
        self, period_s: float, metadata: Metadata, timeout_s: float | None = None
    ) -> StatsCall:
        """Begin to watch all models.

        Args:
            period_s: how often, seconds.
            metadata: as in `Terms`.
            timeout_s: how long to watch, seconds; None: without a deadline.
        """
        request = stats_wire.watch_request("", period_s)
        call = self._line.admin.WatchStats(request, timeout=timeout_s, metadata=tuple(metadata))
        return StatsCall(call)

    def health(self, service: str, terms: Terms) -> Call[str]:
        """Ask the health service; answers the name of a state, such as `SERVING`."""
        request = health_pb2.HealthCheckRequest(service=service)
        names = health_pb2.HealthCheckResponse.ServingStatus
        return _begin(
            self._line.health.Check, request, terms, lambda response: names.Name(response.status)
        )


def secure(
    root_certificates: bytes | None,
    private_key: bytes | None = None,
    certificate_chain: bytes | None = None,
) -> grpc.ChannelCredentials:
    """Return what makes a connection encrypted.

    Args:
        root_certificates: whom to trust, PEM; None: whom gRPC trusts.
        private_key: of the caller, PEM; None: it shows no certificate.
        certificate_chain: of the caller, PEM.
    """
    return grpc.ssl_channel_credentials(root_certificates, private_key, certificate_chain)


def _begin(
    method: Any,
    request: Any,
    terms: Terms,
    unpack: Callable[[Any], Any] = lambda response: response,
) -> Call[Any]:
    # A method that takes a stream is called like one that takes a request.
    future = method.future(request, timeout=terms.timeout_s, metadata=tuple(terms.metadata))
    return Call(future, unpack)


def _options(target: str, max_image_bytes: int, access: channel.Access) -> list[tuple[str, Any]]:
    """Return those of `Client`, without its retries, and quick to connect again."""
    replaced: dict[str, Any] = {
        "grpc.service_config": json.dumps(
            {"loadBalancingConfig": channel.SERVICE_CONFIG["loadBalancingConfig"]}
        ),
        # Otherwise all that was sent of an upload is kept until it is answered.
        "grpc.enable_retries": 0,
        "grpc.initial_reconnect_backoff_ms": RECONNECT_MS[0],
        "grpc.min_reconnect_backoff_ms": RECONNECT_MS[0],
        "grpc.max_reconnect_backoff_ms": RECONNECT_MS[1],
        # The keys of callers may be in the metadata: no proxy of the environment sees them.
        "grpc.enable_http_proxy": 0,
    }
    before = channel.options(target, max_image_bytes=max_image_bytes, access=access)
    return cast("list[tuple[str, Any]]", [*(dict(before) | replaced).items()])
