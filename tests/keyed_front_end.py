"""A front-end that knows a single key, and asks for it before it lists models."""

from typing import Any, Final

import grpc

from prediction.v1 import prediction_pb2
from tests.fake_front_end import Refusal
from tests.fake_operations import FakeOperations

GOOD: Final = "Bearer good"
MISSING: Final = Refusal(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING", "a key is needed")
WRONG: Final = Refusal(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", "not one of ours")


class KeyedFrontEnd(FakeOperations):
    """Serves on a free port of the loopback while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.is_trusting = False
        """Whether whoever has no key may list models, too."""
        self.keyless_count = 0
        self.list_count = 0
        """How often somebody with a key asked for models."""

    def ListModels(  # noqa: N802 - as in the proto
        self, request: prediction_pb2.ListModelsRequest, context: Any
    ) -> prediction_pb2.ListModelsResponse:
        key = dict(context.invocation_metadata()).get("authorization")
        if key is None:
            self.keyless_count += 1
        else:
            self.list_count += 1
        if key != GOOD and not self.is_trusting:
            (WRONG if key else MISSING).abort(context)
        return super().ListModels(request, context)
