"""What happens around every call, whatever its kind.

From the outside in: the access log, the mapping of errors, the gate.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from dispatch.errors import InvalidArgument
from server.access_log import Logged, write_line
from server.call_record import CURRENT, CallRecord
from server.error_mapping import end_call, end_well
from server.gate import Gate

Context = grpc.aio.ServicerContext[Any, Any]
# In quotes: generic only for type checkers.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Puts the record, the log, the status and the gate around every call."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._wrapped: dict[str, Handler] = {}
        """By the name of a method that exists: made once, as it is the same for all calls."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Return the handler of the call with everything around it."""
        record = CallRecord.of(handler_call_details)
        wrapper = self._wrapped.get(record.method)
        if wrapper is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                # gRPC answers by itself, and leaves no trace of it.
                write_line(record, grpc.StatusCode.UNIMPLEMENTED, peer="")
                return None
            wrapper = self._wrapped[record.method] = wrapped(handler, self._gate)
        # The handler runs in this same task.
        CURRENT.set(record)
        return wrapper


def wrapped(handler: Handler, gate: Gate) -> Handler:
    """Return `handler` with everything around it.

    The request is parsed inside, because gRPC answers an unparsable one with the
    text of an exception of ours.
    """
    behaviour: Any = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    parse = parser(handler.request_deserializer)

    async def respond(request: Any, context: Context) -> Any:
        record = CURRENT.get()
        with Logged(record, context):
            try:
                gate.admit(record, context)
                response = await behaviour(
                    request if handler.request_streaming else parse(request), context
                )
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the last line of defence
                await end_call(error, record, context)
            end_well(record, context)
            return response

    async def stream(request: Any, context: Context) -> None:
        record = CURRENT.get()
        with Logged(record, context):
            try:
                gate.admit(record, context)
                await write_all(
                    behaviour(request if handler.request_streaming else parse(request), context),
                    context,
                )
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the last line of defence
                await end_call(error, record, context)
            end_well(record, context)

    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    wrapper: Any = stream if handler.response_streaming else respond
    return make(wrapper, parse if handler.request_streaming else None, handler.response_serializer)


async def write_all(responses: Any, context: Context) -> None:
    """Write what a streaming handler returned; some write to the context by themselves."""
    if not hasattr(responses, "__aiter__"):
        await responses
        return
    # gRPC would iterate over the generator and, when the caller goes away while it
    # writes, leave it to the garbage collector, with all its tasks.
    async with aclosing(responses):
        async for response in responses:
            await context.write(response)


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
