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


def test_members_of_a_group_forget_their_frames_too() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(b"image")
    group = ExceptionGroup("two", [caught.value, ValueError()])
    first, _ = group.exceptions
    first.__context__ = group  # as if it was raised while the group was handled
    without_frames(first)
    assert [each.__traceback__ for each in (group, *group.exceptions)] == [None, None, None]
    assert caught.value.__context__ is None
