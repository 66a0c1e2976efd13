"""Both clients when what a server answers is no message."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from client import AsyncClient, Client, InternalError

NO_MESSAGE = b"\xff\xff\xff"


class Babbler(grpc.GenericRpcHandler):
    """Answers each call with bytes that cannot be parsed."""

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any]":  # generic only as a type
        method = handler_call_details.method.rpartition("/")[2]
        if method == "PredictStream":
            return grpc.stream_stream_rpc_method_handler(lambda *_: iter([NO_MESSAGE]))
        if method == "PredictUpload":
            return grpc.stream_unary_rpc_method_handler(lambda *_: NO_MESSAGE)
        if method == "WatchStats":
            return grpc.unary_stream_rpc_method_handler(lambda *_: iter([NO_MESSAGE]))
        return grpc.unary_unary_rpc_method_handler(lambda *_: NO_MESSAGE)


@pytest.fixture
def target() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Babbler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


CALLS: dict[str, Callable[[Any], Any]] = {
    "predict": lambda client: client.predict(b"cat"),
    "predict_stream": lambda client: client.predict_stream([("k", b"cat")]),
    "predict_upload": lambda client: client.predict_upload([b"cat"]),
    "models": lambda client: client.models(),
    "watch_stats": lambda client: client.admin.watch_stats(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_answer_that_is_no_message_is_an_error_of_the_server(
    target: str, call: Callable[[Client], Any]
) -> None:
    with Client(target) as client, pytest.raises(InternalError):
        list(call(client))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_an_answer_that_is_no_message_is_an_error_of_the_server_with_asyncio(
    target: str, call: Callable[[AsyncClient], Any]
) -> None:
    async with AsyncClient(target) as client:
        with pytest.raises(InternalError):
            await _finished(call(client))


async def test_images_whose_answer_is_no_message_are_unanswered(target: str) -> None:
    async with AsyncClient(target) as client:
        with pytest.raises(InternalError) as caught:
            await _finished(client.predict_stream([("k", b"cat")]))
    assert caught.value.unanswered == ("k",)


async def _finished(call: Awaitable[Any] | AsyncIterator[Any]) -> None:
    if isinstance(call, AsyncIterator):
        _ = [answer async for answer in call]
    else:
        await call
