"""Ray Serve: a gRPC proxy, and replicas of the model, actors of a cluster on this machine."""

import os
import signal
import sys
from typing import Any

import ray
from ray import serve
from ray.serve.config import gRPCOptions

from deploy.address import free_port
from prediction.v1 import prediction_pb2 as pb
from tests.bench.peers import work


@serve.deployment(
    num_replicas=work.worker_count(),
    max_ongoing_requests=100,
    ray_actor_options={"num_cpus": 0},
)
class Model:
    def __init__(self) -> None:
        self._work = work.Work()

    async def Predict(self, request: pb.PredictRequest) -> pb.PredictResponse:  # noqa: N802
        best = await self._best(request.image)
        labelled = [pb.Prediction(label=f"class {each['class_id']}", **each) for each in best]
        return pb.PredictResponse(predictions=labelled)

    @serve.batch(max_batch_size=work.batch_size(), batch_wait_timeout_s=work.wait_s())
    async def _best(self, images: list[bytes]) -> Any:
        return self._work.best(images)


if __name__ == "__main__":
    # Its folder is in /tmp otherwise, whoever asks.
    ray.init(include_dashboard=False, log_to_driver=False, _temp_dir=os.environ["HOME"] + "/ray")
    servicer = "prediction.v1.prediction_pb2_grpc.add_PredictionServiceServicer_to_server"
    options = gRPCOptions(port=int(sys.argv[1]), grpc_servicer_functions=[servicer])
    http = {"host": "127.0.0.1", "port": free_port()}
    serve.start(http_options=http, grpc_options=options)
    application: Any = Model
    serve.run(application.bind(), name="app")
    signal.sigwait([signal.SIGTERM])
    ray.shutdown()
