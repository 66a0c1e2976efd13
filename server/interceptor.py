"""What happens around every call, whatever its kind.

From the outside in: the access log, the mapping of errors, the gate.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from dispatch.errors import InvalidArgument
from server.access_log import logged, write_line
from server.call_record import CURRENT, CallRecord
from server.error_mapping import errors_as_status
from server.gate import Gate

Context = grpc.aio.ServicerContext[Any, Any]
# In quotes: generic only for type checkers.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Around = Callable[[Context], AbstractAsyncContextManager[None]]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Puts the record, the log, the status and the gate around every call."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Return the handler of the call with everything around it."""
        record = CallRecord.of(handler_call_details)
        handler = await continuation(handler_call_details)
        if handler is None:
            # gRPC answers by itself, and leaves no trace of it.
            write_line(record, grpc.StatusCode.UNIMPLEMENTED, peer="")
            return None
        return wrapped(handler, lambda context: self._around(record, context))

    @asynccontextmanager
    async def _around(self, record: CallRecord, context: Context) -> AsyncIterator[None]:
        CURRENT.set(record)
        with logged(record, context):
            async with errors_as_status(record, context):
                self._gate.admit(record, context)
                yield


def wrapped(handler: Handler, around: Around) -> Handler:
    """Return `handler` with `around` around it.

    The request is parsed inside, because gRPC answers an unparsable one with the
    text of an exception of ours.
    """
    behaviour: Any = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    parse = parser(handler.request_deserializer)

    async def respond(request: Any, context: Context) -> Any:
        async with around(context):
            return await behaviour(
                request if handler.request_streaming else parse(request), context
            )

    async def stream(request: Any, context: Context) -> None:
        async with around(context):
            responses = behaviour(request if handler.request_streaming else parse(request), context)
            if not hasattr(responses, "__aiter__"):
                await responses  # it writes to the context by itself
                return
            # gRPC would iterate over the generator and, when the caller goes away
            # while it writes, leave it to the garbage collector, with all its tasks.
            async with aclosing(responses):
                async for response in responses:
                    await context.write(response)

    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    wrapper: Any = stream if handler.response_streaming else respond
    return make(wrapper, parse if handler.request_streaming else None, handler.response_serializer)


def parser(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Return `deserialize`, complaining about the caller's bytes as our own error."""

    def parse(request: bytes) -> Any:
        if deserialize is None:
            return request
        try:
            return deserialize(request)
        except DecodeError as error:
            raise InvalidArgument("request", "the request is not a message of its type") from error

    return parse
