"""The operators' API: each method translates, waits, and translates back."""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc
from google.longrunning import operations_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from dispatch import letters
from dispatch.errors import InvalidArgument
from dispatch.letters import Letter
from prediction.v1 import admin_pb2 as pb
from prediction.v1.admin_pb2_grpc import AdminServiceServicer
from server import names
from server.admin import Admin
from server.call_record import CURRENT
from server.deadline import Deadline, with_margin
from server.gate import Gate
from server.operation_messages import to_operation
from server.operations_service import page_size
from server.ports import Fleet, Stats
from server.settings import ServerSettings
from server.stats_messages import to_response

Context = grpc.aio.ServicerContext[Any, Any]

SHORTEST_PERIOD_S: Final = 1.0
LONGEST_PERIOD_S: Final = 60.0

MOST_NAMES: Final = 1000
"""Letters that one call can name."""


class AdminService(AdminServiceServicer):
    """Looks after what was set aside, and shows what is going on.

    Args:
        settings: deadlines.
        admin: does it.
        stats: what is going on.
        fleet: which models there are.
        gate: ends what would never end.
    """

    def __init__(
        self, settings: ServerSettings, *, admin: Admin, stats: Stats, fleet: Fleet, gate: Gate
    ) -> None:
        self._settings = settings
        self._admin = admin
        self._stats = stats
        self._fleet = fleet
        self._gate = gate

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: Context
    ) -> pb.ListDeadLettersResponse:
        """List the letters of a model."""
        count = page_size(request.page_size)
        after = _parse_token(request.page_token)
        model = self._resolve(request.model)
        page = await self._admin.page(
            model, after=after, count=count, timeout_s=self._timeout_s(context)
        )
        return pb.ListDeadLettersResponse(
            dead_letters=[_to_message(model, letter) for letter in page.letters],
            next_page_token="" if page.next_after is None else _token(page.next_after),
        )

    async def GetDeadLetter(
        self, request: pb.GetDeadLetterRequest, context: Context
    ) -> pb.GetDeadLetterResponse:
        """Return one letter with its image."""
        model, letter_id = self._parse_name(request.name)
        letter = await self._admin.get(model, letter_id, timeout_s=self._timeout_s(context))
        return pb.GetDeadLetterResponse(dead_letter=_to_message(model, letter))

    async def ReplayDeadLetter(
        self, request: pb.ReplayDeadLetterRequest, context: Context
    ) -> operations_pb2.Operation:
        """Submit a letter once more."""
        model, letter_id = self._parse_name(request.name)
        operation = await self._admin.replay(
            model,
            letter_id,
            caller=CURRENT.get().caller,
            traceparent=CURRENT.get().traceparent,
            timeout_s=self._timeout_s(context),
        )
        return to_operation(operation)

    async def PurgeDeadLetters(
        self, request: pb.PurgeDeadLettersRequest, context: Context
    ) -> pb.PurgeDeadLettersResponse:
        """Delete letters for good."""
        _check_names(request)
        model = self._resolve(request.model)
        letter_ids = _to_ids(request.names, model)
        timeout_s = self._timeout_s(context)
        count = await (
            self._admin.clear(model, timeout_s=timeout_s)
            if request.all
            else self._admin.purge(model, letter_ids, timeout_s=timeout_s)
        )
        return pb.PurgeDeadLettersResponse(purged_count=count)

    async def ForgetModel(
        self, request: pb.ForgetModelRequest, context: Context
    ) -> pb.ForgetModelResponse:
        """Forget a model that is no longer served."""
        if not request.name:
            raise InvalidArgument("name", "name must say which model")
        await self._admin.forget(request.name, timeout_s=self._timeout_s(context))
        CURRENT.get().model = request.name
        return pb.ForgetModelResponse()

    async def WatchStats(
        self, request: pb.WatchStatsRequest, context: Context
    ) -> AsyncIterator[pb.WatchStatsResponse]:
        """Show what the whole system does, again and again."""
        del context
        period_s = _period_s(request)
        with self._stats.watched():
            while True:
                samples = await self._gate.unless_closed(self._stats.samples())
                yield to_response(samples, request.model)
                # A sample is shown when it is taken: a worker that was killed is seen a second
                # earlier than by who looks at times of their own.
                await self._gate.unless_closed(asyncio.sleep(period_s - SHORTEST_PERIOD_S / 2))
                await self._gate.unless_closed(self._stats.news())

    def _timeout_s(self, context: Context) -> float:
        return with_margin(Deadline(self._settings, context).remaining_s())

    def _resolve(self, model: str) -> str:
        CURRENT.get().model = name = self._fleet.resolve(model)
        return name

    def _parse_name(self, name: str) -> tuple[str, str]:
        model, letter_id = names.parse_dead_letter(name)
        return self._resolve(model), letter_id


def _period_s(request: pb.WatchStatsRequest) -> float:
    if not request.HasField("period"):
        return SHORTEST_PERIOD_S
    period_s = request.period.seconds + request.period.nanos / 1e9
    if not SHORTEST_PERIOD_S <= period_s <= LONGEST_PERIOD_S:
        raise InvalidArgument(
            "period",
            f"period is {period_s:g} s; it must be from {SHORTEST_PERIOD_S:g} to "
            f"{LONGEST_PERIOD_S:g}",
        )
    return period_s


def _check_names(request: pb.PurgeDeadLettersRequest) -> None:
    if request.all and request.names:
        raise InvalidArgument("names", "either name letters or set all, not both")
    if not (request.all or request.names):
        raise InvalidArgument("names", "name the letters, or set all")
    if len(request.names) > MOST_NAMES:
        raise InvalidArgument(
            "names", f"{len(request.names)} letters are named; the limit is {MOST_NAMES}"
        )


def _to_ids(letter_names: Sequence[str], model: str) -> list[str]:
    ids = []
    for name in letter_names:
        own_model, letter_id = names.parse_dead_letter(name, field="names")
        if own_model != model:
            raise InvalidArgument("names", f"{name} is not a letter of model {model!r}")
        ids.append(letter_id)
    return ids


def _to_message(model: str, letter: Letter) -> pb.DeadLetter:
    content = letter.content
    create_time = Timestamp()
    create_time.FromMilliseconds(letter.set_aside_ms)
    return pb.DeadLetter(
        name=names.dead_letter_name(model, letter.id),
        request_id=content.job.request_id,
        deliveries=content.deliveries,
        reason=content.reason,
        create_time=create_time,
        size_bytes=letter.size_bytes,
        top_k=content.job.top_k,
        image=letter.image or b"",
    )


def _token(after: str) -> str:
    return base64.urlsafe_b64encode(after.encode()).decode()


def _parse_token(token: str) -> str:
    if not token:
        return letters.START
    try:
        after = base64.urlsafe_b64decode(token).decode()
    except ValueError:
        after = ""
    if not letters.is_letter_id(after):
        raise InvalidArgument("page_token", "page_token is not one of this server")
    return after
