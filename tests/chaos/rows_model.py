"""A fault of a worker that runs the real model."""

import asyncio
import io
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from PIL import Image

from prediction.v1 import prediction_pb2
from tests.chaos.crowd import Call, Crowd
from tests.chaos.rig import Rig
from tests.chaos.rows import NotRun, row

MODEL: Final = "efficientnet-lite0"
LABELS: Final = {"coffee.png": "espresso", "rocket.jpg": "missile", "motorcycle_left.png": "moped"}
LOAD_S: Final = 120.0


class Photographers(Crowd):
    """Callers with photos, who know what is on them."""

    def request(self, call: Call, *, request_id: str = "") -> prediction_pb2.PredictRequest:
        """Ask about one of the photos."""
        image = PHOTOS[_name(call)]
        return prediction_pb2.PredictRequest(model=MODEL, image=image, request_id=request_id)

    def is_own(self, call: Call, response: prediction_pb2.PredictResponse) -> bool:
        """Say whether the label is that of the photo."""
        return response.predictions[0].label == LABELS[_name(call)]


def _name(call: Call) -> str:
    return sorted(LABELS)[call.colour[2] % len(LABELS)]


def _photo(name: str) -> bytes:
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise NotRun("needs scikit-image, for its photos")
    buffer = io.BytesIO()
    with Image.open(Path(spec.origin).parent / "data" / name) as image:
        image.convert("RGB").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


PHOTOS: Final[dict[str, bytes]] = {}


@row("real-model", "one of two workers with the bundled model killed under load")
async def real_model(rig: Rig) -> None:
    if find_spec("tensorflow") is None:
        raise NotRun("needs tensorflow")
    if rig.options.broken:
        raise NotRun("its workers are the real ones, and keep their promises")
    PHOTOS.update({name: _photo(name) for name in LABELS})
    rig.model = MODEL
    rig.crowd_type = Photographers
    rig.front_end()
    environment = {
        "REDIS_URL": rig.redis.url,
        "WORKER_CACHE_DIR": str(rig.redis.folder / "cache"),
        "WORKER_INFERENCE_THREADS": "1",
        "WORKER_PROCESSES": "1",
    }
    workers = []
    for _ in range(2):
        # One after the other: the first one fills the cache.
        workers.append(rig.start(["-m", "worker"], environment))
        await asyncio.to_thread(workers[-1].wait_for_line, "worker ready", LOAD_S)
    await rig.until_ready(workers=2)
    crowd = rig.crowd()
    async with crowd.busy(callers=16, streams=1):
        await rig.until(lambda: rig.totals().get("completed", 0) > 50, 60)
        held = rig.in_hand()
        rig.inject(f"SIGKILL, {held} in hands")
        await asyncio.to_thread(workers[0].kill)
        await asyncio.sleep(1)
