"""What stays of an error that ended a call."""

import pytest

from dispatch.errors import InvalidArgument
from server.error_mapping import without_frames


def parse(message: bytes) -> None:
    try:
        raise ValueError(f"{len(message)} bytes are no message")
    except ValueError as error:
        raise InvalidArgument("request", "not a message") from error


def test_an_error_forgets_the_frames_it_came_through_and_those_of_its_causes() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(b"image")
    cause = caught.value.__cause__
    without_frames(caught.value)
    assert caught.value.__traceback__ is None
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert isinstance(cause, ValueError)
    assert cause.__traceback__ is None
