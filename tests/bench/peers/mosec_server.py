"""mosec: an HTTP server in Rust, and processes of the model behind a socket."""

import sys
from typing import Any

from mosec import Server, Worker

from tests.bench.peers import work


class Model(Worker):
    def __init__(self) -> None:
        super().__init__()
        self._work = work.Work()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: Any) -> bytes | list[bytes]:
        # A single one if batches are switched off.
        return self._work.texts(data) if work.batch_size() > 1 else self._work.texts([data])[0]


if __name__ == "__main__":
    # mosec reads the rest of the command line.
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", sys.argv[1], "--log-level", "warning"]
    server = Server()
    server.append_worker(
        Model,
        num=work.worker_count(),
        max_batch_size=work.batch_size(),
        max_wait_time=round(work.wait_s() * 1000),
    )
    server.run()
