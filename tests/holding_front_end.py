"""A front-end that answers when it is told to, and so keeps the threads of a gateway."""

import threading
from typing import Any

from prediction.v1 import prediction_pb2 as pb
from tests.fake_front_end import LIMIT_S, FakeFrontEnd, answer

LOOK_S = 0.01


class HoldingFrontEnd(FakeFrontEnd):
    """Has `Predict` wait for `may_answer`, or for the end of the call."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = threading.Event()
        self._arrived = threading.Semaphore(0)

    def wait_for_calls(self, count: int) -> None:
        """Wait until so many more have arrived."""
        for _ in range(count):
            assert self._arrived.acquire(timeout=LIMIT_S)

    def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:  # noqa: N802 - as in the proto
        self.requests.append(request)
        self._arrived.release()
        while context.is_active() and not self.may_answer.wait(LOOK_S):
            pass
        return answer(request)
