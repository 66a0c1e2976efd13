"""From pieces to calls: each image is sent on while the next one arrives."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from client.errors import DespachoError, Overloaded
from client.messages import Call
from gateway.body import Piece
from gateway.connection import Connection, answer, rest
from gateway.problems import Problem, Refused, of_error
from gateway.settings import MIB

AnswerT = TypeVar("AnswerT")

WINDOW: Final = 16
"""Images of one request that may be in the hands of the front-end at a time."""

WINDOW_BYTES: Final = 32 * MIB
"""With more bytes of one request there, its next image waits: it must not take the place of
all others, nor find none because of itself."""

RATE_LIMITED: Final = "RATE_LIMITED"
"""Why an image is refused whose caller has others in progress, or sent others just before."""

OF_THE_IMAGE: Final = {"INFERENCE_FAILED", "JOB_POISONED"}
"""Reasons that are in the image, beside those that name it as the field at fault."""


class Sink(Protocol, Generic[AnswerT]):
    """Takes one image in pieces."""

    @property
    def held_bytes(self) -> int:
        """How much of the image is still here, bytes."""

    def write(self, piece: bytes) -> bool:
        """Take the next bytes; return whether there is any use in more of them."""

    def finish(self) -> Call[AnswerT]:
        """Say that the image is complete; return what will have the answer.

        Raises:
            Refused: it is not even sent.
        """

    def again(self) -> Call[AnswerT] | None:
        """Send a complete image once more; None: too much of it is here no longer."""

    def close(self) -> None:
        """Keep nothing of the image, and give it up if it has no answer; harmless when repeated."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[AnswerT]):
    """What became of one of several images."""

    filename: str
    answer: AnswerT
    """Nothing if there is a problem."""
    problem: Problem | None


def one(
    pieces: Iterator[Piece],
    sink: Sink[AnswerT],
    connection: Connection,
    *,
    patient_until_s: float = 0,
) -> AnswerT:
    """Answer a request with one image.

    Args:
        pieces: the image.
        sink: takes it.
        connection: that of the caller.
        patient_until_s: until when it is sent again if the limits of its key refuse it, seconds
            of the monotonic clock.

    Raises:
        DespachoError, Refused, CallerGone: there is no answer.
    """
    try:
        for piece in pieces:
            if not sink.write(piece.data):
                break
        return _patient_answer(sink.finish(), sink, connection, patient_until_s)
    finally:
        sink.close()


def many(
    pieces: Iterator[Piece],
    new_sink: Callable[[int], Sink[AnswerT]],
    connection: Connection,
    *,
    ends_s: float,
    window: int = WINDOW,
    is_lasting: bool = False,
) -> list[Outcome[AnswerT]]:
    """Answer a request with several images, in their order; each fails alone.

    Args:
        pieces: the images.
        new_sink: returns what takes the image of that number.
        connection: that of the caller.
        ends_s: when the caller gives up, seconds of the monotonic clock.
        window: how many may be in the hands of the front-end at a time.
        is_lasting: whether an answer is worth something although the request breaks off behind
            its image: then what is wrong comes behind the answers, as if of one more image.

    Raises:
        Refused, CallerGone: the request as a whole cannot be answered.
    """
    line = _Line[AnswerT](connection, window, ends_s)
    sink: Sink[AnswerT] | None = None
    filename = ""
    try:
        for piece in pieces:
            if piece.begins or sink is None:
                line.make_room()
                sink, filename = new_sink(line.count), piece.filename
            sink.write(piece.data)
            if piece.ends:
                line.add(filename, sink)
                sink, filename = None, ""
        return line.outcomes()
    except Refused as refusal:
        if not is_lasting or not line.count:
            raise
        return [*line.outcomes(), _failure(filename, refusal.problem)]
    finally:
        if sink is not None:
            sink.close()
        line.close()


class _Line(Generic[AnswerT]):
    """The images of one request, in their order."""

    def __init__(self, connection: Connection, window: int, ends_s: float) -> None:
        self._connection = connection
        self._window = window
        self._ends_s = ends_s
        # The other half is for what has not arrived yet: too late, it would take the answers along.
        self._half_s = (time.monotonic() + ends_s) / 2
        self._done: list[Outcome[AnswerT]] = []
        self._waiting: list[tuple[str, Call[AnswerT], Sink[AnswerT]]] = []

    @property
    def count(self) -> int:
        """How many images there were."""
        return len(self._done) + len(self._waiting)

    def make_room(self) -> None:
        """Wait until one more may be sent."""
        while len(self._waiting) >= self._window or self._held_bytes() >= WINDOW_BYTES:
            self._settle(self._half_s)

    def add(self, filename: str, sink: Sink[AnswerT]) -> None:
        """Take an image that is complete."""
        try:
            self._waiting.append((filename, sink.finish(), sink))
        except Refused as refusal:
            sink.close()
            while self._waiting:
                self._settle(self._half_s)
            self._done.append(_failure(filename, refusal.problem))

    def outcomes(self) -> list[Outcome[AnswerT]]:
        """Wait for all."""
        while self._waiting:
            self._settle(self._ends_s)
        return self._done

    def close(self) -> None:
        """Give up what waits."""
        for _, call, sink in self._waiting:
            call.cancel()
            sink.close()

    def _held_bytes(self) -> int:
        return sum(sink.held_bytes for _, _, sink in self._waiting)

    def _settle(self, patient_until_s: float) -> None:
        filename, call, sink = self._waiting[0]
        try:
            outcome = Outcome(
                filename, _patient_answer(call, sink, self._connection, patient_until_s), None
            )
        except DespachoError as error:
            outcome = _failure(filename, of_error(error))
        except Refused as refusal:
            outcome = _failure(filename, refusal.problem)
        sink.close()
        del self._waiting[0]
        self._done.append(outcome)


def _patient_answer(
    call: Call[AnswerT], sink: Sink[AnswerT], connection: Connection, until_s: float
) -> AnswerT:
    """Return the answer to an image, sent again if its caller's other calls were too many.

    Of these the caller knows nothing: they are for other images of the same request, or ask
    for its key.
    """
    pause_s = 0.0  # the first refusal may be older than the answers before
    while True:
        try:
            return answer(call, connection)
        except Overloaded as error:
            hint_s = error.retry_after_s
            if error.reason != RATE_LIMITED or hint_s is None:
                raise
            if time.monotonic() + hint_s >= until_s:
                raise
            rest(pause_s, connection)
            again = sink.again()
            if again is None:
                raise
            call, pause_s = again, hint_s


def _failure(filename: str, problem: Problem) -> Outcome[Any]:
    return Outcome(filename, None, problem)


def shared_problem(outcomes: list[Outcome[AnswerT]]) -> Problem | None:
    """Return why a whole request failed, if all its images did for the same reason.

    Not for a reason that is in the images: then each caller wants to know of each.
    """
    problems = [outcome.problem for outcome in outcomes]
    first = problems[0] if problems else None
    if first is None or first.field == "image" or first.reason in OF_THE_IMAGE:
        return None
    is_shared = all(
        problem is not None and (problem.status, problem.reason) == (first.status, first.reason)
        for problem in problems
    )
    return first if is_shared else None
