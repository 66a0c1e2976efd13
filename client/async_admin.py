"""What an operator may see and do: `AsyncClient.admin`."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from prediction.v1 import admin_pb2

from . import operation_wire, stats_wire
from .async_connection import Connection
from .results import DeadLetter, Operation
from .stats import Stats
from .wire import DEFAULT_TIMEOUT_S


class Admin:
    """Looks after dead letters, images whose workers died again and again, and shows what goes on.

    Args:
        connection: that of the client.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def dead_letters(
        self, model: str = "", *, page_size: int = 0, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> AsyncGenerator[DeadLetter, None]:
        """List dead letters, oldest first, without their images.

        Args:
            model: empty: the only one served, or the server's default.
            page_size: letters per call; 0: as many as the server likes.
            timeout_s: longest wait for one page.

        Raises:
            NotFound: no such model was ever served.
        """
        request = admin_pb2.ListDeadLettersRequest(model=model, page_size=page_size)
        while True:
            page = await self._connection.call(
                self._connection.admin.ListDeadLetters, request, timeout_s=timeout_s
            )
            for message in page.dead_letters:
                yield operation_wire.dead_letter(message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def dead_letter(self, name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> DeadLetter:
        """Return one dead letter with its image.

        Raises:
            NotFound: it is not there, or no more.
        """
        request = admin_pb2.GetDeadLetterRequest(name=name)
        response = await self._connection.call(
            self._connection.admin.GetDeadLetter, request, timeout_s=timeout_s
        )
        return operation_wire.dead_letter(response.dead_letter)

    async def replay_dead_letter(
        self, name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Operation:
        """Submit a dead letter once more, and remove it from the letters.

        Never tried again by itself: the second time it would not be there. If the
        answer is lost, the operation is in `operations`.

        Raises:
            NotFound: it is not there, or no more.
            Overloaded: too many operations wait; the letter is still there.
        """
        request = admin_pb2.ReplayDeadLetterRequest(name=name)
        return operation_wire.operation(
            await self._connection.call(
                self._connection.admin.ReplayDeadLetter, request, timeout_s=timeout_s
            )
        )

    async def purge_dead_letters(
        self,
        model: str = "",
        names: Iterable[str] = (),
        *,
        all: bool = False,  # noqa: A002 - as in the contract
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> int:
        """Delete dead letters for good; returns how many.

        Args:
            model: empty: those that `names` are of; with `all`, the only one
                served, or the server's default.
            names: which letters; those that are not there are not counted.
            all: delete all letters of the model; without `names`.
            timeout_s: longest wait for a call; each can delete 1000 named letters.
        """
        purged_count = 0
        for request in operation_wire.purge_requests(model, names, is_all=all):
            response = await self._connection.call(
                self._connection.admin.PurgeDeadLetters, request, timeout_s=timeout_s
            )
            purged_count += response.purged_count
        return purged_count

    async def forget_model(self, name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Forget a model that is no longer served: `models` does not list it any more.

        Raises:
            NotFound: no such model was ever served.
            InvalidInput: a worker of the model lives, images wait for it, or it
                has dead letters.
        """
        request = admin_pb2.ForgetModelRequest(name=name)
        await self._connection.call(
            self._connection.admin.ForgetModel, request, timeout_s=timeout_s
        )

    async def watch_stats(
        self,
        model: str = "",
        *,
        period_s: float = stats_wire.DEFAULT_PERIOD_S,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Stats, None]:
        """Show what the whole system does, over all servers and workers, again and again.

        Args:
            model: empty: all models.
            period_s: how often, seconds. Range [1, 60].
            timeout_s: when to stop, seconds; None: when the connection ends, which
                then is an error, or when the caller leaves the loop.

        Raises:
            Cancelled: `close` was called in another task.
            DeadlineExceeded: `timeout_s` is over.
            InvalidInput: `period_s` is out of range.
            Unavailable: the server stops, or it has not seen anything, as it cannot
                reach Redis.
        """
        request = stats_wire.watch_request(model, period_s)
        messages = self._connection.stream(
            self._connection.admin.WatchStats, request, timeout_s=timeout_s
        )
        async with aclosing(messages):
            async for message in messages:
                yield stats_wire.stats(message)
