"""What happens around every call, whatever its kind.

From the outside in: the gate, the access log, the mapping of errors. The refusals of the gate
are logged and mapped as well.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from dispatch.errors import DespachoError, InvalidArgument
from server.access_log import Logged, write_line
from server.call_record import CURRENT, CallRecord
from server.error_mapping import end_call, end_well
from server.field_count import check_field_count
from server.gate import Gate, draining
from server.grpc_metrics import CALLS
from server.ids import new_id
from server.scopes import need_of
from server.strangers import Strangers

Context = grpc.aio.ServicerContext[Any, Any]
# In quotes: generic only for type checkers.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


WHY_S: Final = 0.05
"""How long gRPC may take to tell that a call ended because its caller has gone, seconds."""

REFUSAL: Final[ContextVar[Exception]] = ContextVar("despacho_refusal")
"""Why the handler `refuse` refuses the call that the running code belongs to."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Puts the record, the log, the status and the gate around every call."""

    def __init__(
        self, gate: Gate, *, flood: Callable[[str], DespachoError | None] = lambda _: None
    ) -> None:
        """Serve.

        Args:
            gate: counts the calls inside.
            flood: tells of a method why a call would be refused whatever its message says;
                None: it may not be. The message is then not even received.
        """
        self._gate = gate
        self._flood = flood
        self._strangers = Strangers(only_message)
        self._refuse = wrapped(grpc.stream_unary_rpc_method_handler(refuse), gate)
        self._wrapped: dict[str, Handler] = {}
        """By the name of a method that exists: made once, as it is the same for all calls."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Return the handler of the call with everything around it."""
        try:
            return await self._handler(continuation, handler_call_details)
        except Exception as error:  # noqa: BLE001 - the last line of defence
            # Out of here it would end the call as UNKNOWN, with its text for the caller.
            CURRENT.set(CallRecord(handler_call_details.method, new_id()))
            REFUSAL.set(error)
            return self._refuse

    async def _handler(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        record = CallRecord.of(handler_call_details)
        refusal = self._flood(record.method)
        if refusal is not None:
            CURRENT.set(record)
            REFUSAL.set(refusal)
            return self._refuse
        wrapper = self._wrapped.get(record.method)
        if wrapper is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                # gRPC answers by itself, and leaves no trace of it.
                CALLS.began(record.method)
                write_line(record, grpc.StatusCode.UNIMPLEMENTED, peer="")
                return None
            is_for_all = need_of(record.method) == "nothing"
            read = self._strangers.message if is_for_all else only_message
            wrapper = self._wrapped[record.method] = wrapped(handler, self._gate, read)
        # The handler runs in this same task.
        CURRENT.set(record)
        return wrapper


async def refuse(requests: Any, context: Context) -> Any:
    """Refuse a call without its message.

    Of a stream, whatever the method is: gRPC receives the message of a unary call before
    it calls a handler of those.

    Raises:
        Exception: what `REFUSAL` says.
    """
    del requests, context
    raise REFUSAL.get()


async def only_message(context: Context) -> Any:
    """Return the message of a call that has one; `grpc.aio.EOF` if it ended without.

    Cancelled, when its caller went away on the way: that is no call yet, for logs and metrics.
    """
    message = await context.read()
    if message is grpc.aio.EOF:
        # That the messages have ended is told first, and then why.
        await asyncio.sleep(WHY_S)
    return message


def wrapped(
    handler: Handler, gate: Gate, read: Callable[[Context], Awaitable[Any]] = only_message
) -> Handler:
    """Return `handler` with everything around it.

    The request is parsed inside, because gRPC answers an unparsable one with the
    text of an exception of ours. And every handler is one of a stream of requests: gRPC
    drops a call that ends without a message before it calls a handler of the other kind,
    sends no status, and lets the caller wait.

    Args:
        handler: that of a method.
        gate: counts the calls inside.
        read: returns the only message of a call, `grpc.aio.EOF`, or why it is not waited for.
    """
    behaviour: Any = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    if handler.request_streaming:
        behaviour = letting_go(behaviour, answers_many=handler.response_streaming)
    parse = parser(handler.request_deserializer)

    async def respond(requests: Any, context: Context) -> Any:
        record = CURRENT.get()
        is_inside = gate.admit(record)
        request = requests if handler.request_streaming else await read(context)
        with Logged(record, context):
            try:
                if not is_inside:
                    raise draining()
                # In the place of its bytes, as they are as large as the image and nobody's now.
                request = request if handler.request_streaming else parse(request)
                response = await behaviour(request, context)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the last line of defence
                request = None  # the frame lives as long as what `end_call` raises
                # Costs more than to set the code and return, but only so the status comes
                # without initial metadata, after which clients do not try again.
                await end_call(error, record, context)
            end_well(record, context)
            return response

    async def stream(requests: Any, context: Context) -> None:
        record = CURRENT.get()
        is_inside = gate.admit(record)
        request = requests if handler.request_streaming else await read(context)
        with Logged(record, context):
            try:
                if not is_inside:
                    raise draining()
                request = request if handler.request_streaming else parse(request)
                await write_all(behaviour(request, context), context)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the last line of defence
                request = None  # the frame lives as long as what `end_call` raises
                await end_call(error, record, context)
            end_well(record, context)

    parse_each = parse if handler.request_streaming else None
    make: Any = grpc.stream_unary_rpc_method_handler
    wrapper: Any = respond
    if handler.response_streaming:
        make, wrapper = grpc.stream_stream_rpc_method_handler, stream
    around: Handler = make(wrapper, parse_each, handler.response_serializer)
    return around


def letting_go(behaviour: Callable[[Any, Context], Any], *, answers_many: bool) -> Any:
    """Return a handler of a stream of requests that keeps none of them when it has ended."""

    async def respond(requests: Any, context: Context) -> Any:
        async with messages_of(requests) as messages:
            responses = behaviour(messages, context)
            return await (write_all(responses, context) if answers_many else responses)

    return respond


@asynccontextmanager
async def messages_of(requests: Any) -> AsyncIterator[Any]:
    """Yield the generator of a stream's messages; close it on the way out.

    That of gRPC is in a ring with what made it. One that is not read to its end would stay, with
    the last message, until the next collection of garbage.
    """
    messages = aiter(requests)
    try:
        yield messages
    finally:
        # One who still reads was cancelled, and then it ends by itself.
        with suppress(RuntimeError):
            await messages.aclose()


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


def parser(deserialize: Callable[[bytes], Any] | None) -> Callable[[Any], Any]:
    """Return `deserialize`, complaining about the caller's bytes as our own error."""
    # Generated code has a method of the class of the message.
    kind = getattr(getattr(deserialize, "__self__", None), "DESCRIPTOR", None)

    def parse(request: Any) -> Any:
        if request is grpc.aio.EOF:
            raise InvalidArgument("request", "the call ended without a request")
        if isinstance(request, DespachoError):
            raise request
        if deserialize is None:
            return request
        try:
            if kind is not None:
                check_field_count(request, kind)
            return deserialize(request)
        except DecodeError as error:
            raise InvalidArgument("request", "the request is not a message of its type") from error

    return parse
