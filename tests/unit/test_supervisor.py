"""How the parent of several processes bears with those that end."""

import pytest

from supervision.supervisor import FIRST_PAUSE_S, LONGEST_PAUSE_S, pause_after


@pytest.mark.parametrize(
    ("failures", "pause_s"),
    [(0, FIRST_PAUSE_S), (1, 2 * FIRST_PAUSE_S), (6, LONGEST_PAUSE_S), (100_000, LONGEST_PAUSE_S)],
)
def test_pauses_grow_up_to_the_longest(failures: int, pause_s: float) -> None:
    assert pause_after(failures) == pause_s
