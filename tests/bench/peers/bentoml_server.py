"""BentoML: Starlette in front, in each process of the model.

    python -m tests.bench.peers.bentoml_server PORT

It puts lists and arrays together into batches, but not files: one image at a time.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from tests.bench.peers import work


@bentoml.service(workers=work.worker_count())
class Model:
    def __init__(self) -> None:
        self._work = work.Work()

    @bentoml.api(route="/predict")
    def predict(self, image: Annotated[Path, ContentType("image/jpeg")], /) -> work.Best:
        return self._work.best([image.read_bytes()])[0]


if __name__ == "__main__":
    program = Path(sys.executable).with_name("bentoml")
    service = f"{__spec__.name}:Model"
    options = ["--host", "127.0.0.1", "--port", sys.argv[1]]
    os.execv(program, [str(program), "serve", service, *options])  # noqa: S606
