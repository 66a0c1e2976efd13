"""What `make` waits for before it says that the services work."""

from collections.abc import Callable
from types import SimpleNamespace, TracebackType
from typing import Self

import pytest

from client import Label, PredictionResult, Timing
from client.errors import DespachoError, InvalidInput
from deploy import access, prediction
from deploy.errors import StackError

RESULT = PredictionResult(
    labels=(Label("espresso", class_id=1, score=0.9),),
    model="m",
    model_version="1",
    timing=Timing(0.1, 0.1, 0.1, 0.3, 1, 1),
    worker="w",
    request_id="r",
)


class FrontEnd:
    """Answers one call after the other as it was told, and the last way for ever."""

    def __init__(self, *answers: PredictionResult | dict[str, int] | DespachoError) -> None:
        self._answers = list(answers)

    def __call__(self, _address: str) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        pass

    def models(self, **_: object) -> list[SimpleNamespace]:
        counts = self._next()
        assert isinstance(counts, dict)
        return [SimpleNamespace(name=name, live_workers=n) for name, n in counts.items()]

    def predict(self, *_: object, **__: object) -> PredictionResult:
        answer = self._next()
        assert isinstance(answer, PredictionResult)
        return answer

    def _next(self) -> PredictionResult | dict[str, int]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, DespachoError):
            raise answer
        return answer


UseFrontEnd = Callable[[FrontEnd], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> UseFrontEnd:
    """Put a front-end at every address."""
    monkeypatch.setattr(prediction, "PAUSE_S", 0)
    return lambda front_end: monkeypatch.setattr(access, "client", front_end)


def test_a_model_of_earlier_is_waited_away(use: UseFrontEnd) -> None:
    use(FrontEnd(InvalidInput("several models are served, name one", field="model"), RESULT))
    assert prediction.wait_for_prediction("a:1", lambda: None) == RESULT


def test_an_image_that_is_refused_is_not_sent_again(use: UseFrontEnd) -> None:
    use(FrontEnd(InvalidInput("too large", field="image"), RESULT))
    with pytest.raises(StackError, match="too large"):
        prediction.wait_for_prediction("a:1", lambda: None)


@pytest.mark.parametrize(
    "after",
    [
        {"mine": 2, "own": 2},
        # Meanwhile one of those that were started by hand has ended.
        {"mine": 2, "own": 1},
        {"mine": 2},
    ],
)
def test_the_workers_of_another_model_are_not_counted(
    use: UseFrontEnd, after: dict[str, int]
) -> None:
    use(FrontEnd({"mine": 1, "own": 2}, {"mine": 1, "own": 2}, after))
    before = prediction.live_workers("a:1")
    prediction.wait_for_workers("a:1", before, 1, lambda: None, limit_s=10)


def test_workers_that_do_not_come_are_told(use: UseFrontEnd) -> None:
    use(FrontEnd({"mine": 1, "own": 2}, {"mine": 2, "own": 1}))
    before = prediction.live_workers("a:1")
    with pytest.raises(StackError, match="1 of 2 workers are ready after 0 s"):
        prediction.wait_for_workers("a:1", before, 2, lambda: None, limit_s=0)
