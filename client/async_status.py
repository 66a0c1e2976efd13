"""The status that a server gave a call, whatever gRPC makes of it afterwards.

When a server ends a stream that is still being sent, gRPC for asyncio may put an internal
error of its own in the place of the status (https://github.com/grpc/grpc/issues/36066).
When it tells that the call is over it still has the right one.
"""

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc

AnswerT = TypeVar("AnswerT")


@contextmanager
def as_the_server_said(call: Any) -> Iterator[None]:
    """Raise what the server said, should `call` fail inside with something else.

    Args:
        call: one that was just begun.
    """
    first: list[grpc.aio.AioRpcError] = []

    def note(ended: Any) -> None:
        code = _at_once(ended.code())
        trailers = _at_once(ended.trailing_metadata())
        if code is not None and code is not grpc.StatusCode.OK and trailers is not None:
            details = _at_once(ended.details())
            first.append(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details))

    call.add_done_callback(note)
    try:
        yield
    except grpc.aio.AioRpcError as error:
        # When its own error came before the status, gRPC has put that right by now.
        if first and error.code() is grpc.StatusCode.INTERNAL:
            raise first[0] from error
        raise


def _at_once(question: Coroutine[Any, Any, AnswerT]) -> AnswerT | None:
    """Return what need not be waited for; None if it must be."""
    try:
        question.send(None)
    except StopIteration as answered:
        answer: AnswerT = answered.value
        return answer
    question.close()
    return None
