"""The least that serves a model over gRPC: grpc.aio, uvloop, and the model in the same process.

    python -m tests.bench.bare_server ENGINE THREADS ADDRESS

One image at a time, in one thread. There is no queue, no batch, no deadline, no log, no other
process, and nothing is kept if it ends.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import uvloop

from prediction.v1 import prediction_pb2 as pb
from prediction.v1.prediction_pb2_grpc import PredictionServiceServicer
from telemetry import logs
from tests.bench.echo import REQUEST_ID, answer, serve
from tests.bench.in_process import loaded


class BareServer(PredictionServiceServicer):
    def __init__(self, engine: str, threads: int) -> None:
        self._decode, self._engine = loaded(engine, threads)
        self._thread = ThreadPoolExecutor(1)

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:  # noqa: N802
        del context
        loop = asyncio.get_running_loop()
        best = await loop.run_in_executor(self._thread, self._best, request.image)
        return answer(best, REQUEST_ID)

    def _best(self, image: bytes) -> int:
        return int(self._engine.predict(np.stack([self._decode(image)]))[0].argmax())


if __name__ == "__main__":
    name, count, where = sys.argv[1:]
    logs.configure("bare server", level="WARNING")
    # What it does not have is answered with UNIMPLEMENTED.
    uvloop.run(serve(where, BareServer(name, int(count))))  # type: ignore[abstract]
