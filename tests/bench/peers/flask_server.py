"""The design of many a course: Flask puts images into a list of Redis, and looks for answers.

    python -m tests.bench.peers.flask_server PORT

Processes of the model look into the list, and take as many images as they may at once.
"""

import multiprocessing
import os
import sys
import time
import uuid
from typing import Any, Final

from flask import Flask, Response, request
from redis import Redis

from tests.bench.peers import work

QUEUE: Final = "images"
KEY_CHARACTERS: Final = 32
LOOK_S: Final = 0.05
"""Between looks, on both sides."""


def served(url: str) -> Flask:
    """Return the front."""
    app = Flask(__name__)
    database = Redis.from_url(url)

    @app.post("/predict")
    def predict() -> Response:
        key = uuid.uuid4().hex
        database.rpush(QUEUE, key.encode() + request.get_data())
        while (answer := database.get(key)) is None:
            time.sleep(LOOK_S)
        database.delete(key)
        return Response(answer, mimetype="application/json")

    return app


def run_model(url: str) -> None:
    """Answer for ever."""
    database = Redis.from_url(url)
    model = work.Work()
    while True:
        taken: Any = database.lpop(QUEUE, work.batch_size())
        if not taken:
            time.sleep(LOOK_S)
            continue
        keys = [each[:KEY_CHARACTERS].decode() for each in taken]
        answers = model.texts([each[KEY_CHARACTERS:] for each in taken])
        database.mset(dict(zip(keys, answers, strict=True)))


if __name__ == "__main__":
    redis_url = os.environ[work.REDIS]
    for _ in range(work.worker_count()):
        multiprocessing.Process(target=run_model, args=(redis_url,), daemon=True).start()
    served(redis_url).run("127.0.0.1", int(sys.argv[1]), threaded=True)
