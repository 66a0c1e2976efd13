"""How long calls wait for each other."""

import pytest

from server.company import window_s


@pytest.mark.parametrize(
    ("calls", "milliseconds"),
    [(0, 0), (1, 0), (4, 0), (5, 2), (16, 2), (32, 4), (64, 8), (1000, 8)],
)
def test_few_wait_for_nobody_and_many_longer_than_some(calls: int, milliseconds: float) -> None:
    assert window_s(calls) * 1000 == pytest.approx(milliseconds)
