"""LitServe: FastAPI in front, and processes of the model behind a queue.

    python -m tests.bench.peers.litserve_server PORT

It takes bytes as a form only.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import litserve
from fastapi import Request, Response

from tests.bench.peers import work


class Model(litserve.LitAPI):
    def setup(self, device: str) -> None:
        del device
        self._work = work.Work()

    def decode_request(self, request: Request) -> bytes:
        # By then it is one; the name of its type is how LitServe is told not to look into it.
        form: Mapping[str, Any] = request
        content: bytes = form["image"].file.read()
        return content

    def batch(self, inputs: Sequence[bytes]) -> Sequence[bytes]:
        return inputs

    def predict(self, inputs: Any) -> bytes | list[bytes]:
        # A single one if batches are switched off.
        return self._work.texts(inputs) if work.batch_size() > 1 else self._work.texts([inputs])[0]

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/json")


if __name__ == "__main__":
    api = Model(max_batch_size=work.batch_size(), batch_timeout=work.wait_s())
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=work.worker_count(), fast_queue=True
    )
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False
    )
