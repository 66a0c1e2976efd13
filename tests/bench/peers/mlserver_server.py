"""MLServer: gRPC in front, by the Open Inference Protocol, and processes of the model behind it."""

import asyncio
import os
import sys
from typing import Final

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from deploy.address import free_port
from tests.bench.peers import work

NAME: Final = "model"


class Model(MLModel):
    async def load(self) -> bool:
        self._work = work.Work()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = list(payload.inputs[0].data)
        texts = self._work.texts(images)
        output = ResponseOutput(name="best", datatype="BYTES", shape=[len(texts), 1], data=texts)
        return InferenceResponse(model_name=NAME, outputs=[output])


async def serve(port: int) -> None:
    settings = Settings(
        host="127.0.0.1",
        grpc_port=port,
        http_port=free_port(),
        # With them it does not start: its gRPC server registers them twice.
        metrics_endpoint=None,
        # A folder for them it makes all the same.
        metrics_dir=os.environ["HOME"],
        parallel_workers=work.worker_count(),
    )
    batch = work.batch_size()
    model = ModelSettings(
        name=NAME,
        implementation=f"{__spec__.name}.Model",
        max_batch_size=batch if batch > 1 else 0,
        max_batch_time=work.wait_s() if batch > 1 else 0,
        parameters=ModelParameters(version="1"),
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
