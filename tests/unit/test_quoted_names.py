"""What a caller wrote is repeated in an error, but not a whole message of it."""

import pytest

from dispatch.errors import MAX_QUOTED_CHARS, ModelNotFound, OperationNotFound, quoted

LONG = "\0" * 1_000_000


def test_a_short_name_is_quoted_as_it_is() -> None:
    assert quoted("cat's") == '"cat\'s"'
    assert quoted("x" * MAX_QUOTED_CHARS) == repr("x" * MAX_QUOTED_CHARS)


@pytest.mark.parametrize("kind", [ModelNotFound, OperationNotFound])
def test_of_a_long_name_an_error_keeps_the_beginning(
    kind: type[ModelNotFound | OperationNotFound],
) -> None:
    error = kind(LONG)
    assert error.name == LONG[:MAX_QUOTED_CHARS]
    assert "\\x00'... " in str(error)
    # Each zero becomes four characters.
    assert len(str(error)) < 5 * MAX_QUOTED_CHARS
