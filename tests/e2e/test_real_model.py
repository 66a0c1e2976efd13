"""Real photos through gRPC, Redis and a TensorFlow worker, called as users call it."""

import base64
import io
import json
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import grpc
import pytest
from PIL import Image

from dispatch import keys
from dispatch.worker_clock import ROUND_TRIP_S
from prediction.v1 import prediction_pb2 as pb
from prediction.v1 import prediction_pb2_grpc
from tests.e2e.system import MODEL, WAYS, System, running
from tests.processes import ROOT
from tests.redis_server import RedisServer
from tests.stack import details_of_status

pytestmark = [pytest.mark.model, pytest.mark.timeout(180)]

CLOCK_ERROR_US = 1_000_000 * ROUND_TRIP_S / 2 + 1000
"""By how much a worker's clock may be wrong, and the resolution of an entry id."""

SAMPLES = {
    "coffee.png": (967, "espresso"),
    "camera.png": (872, "tripod"),
    "motorcycle_left.png": (665, "moped"),
    "rocket.jpg": (657, "missile"),
    "chelsea.png": (282, "tiger cat"),
}


def sample(name: str) -> Path:
    """Return a photo that scikit-image ships."""
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / name


def jpeg_of(path: Path) -> bytes:
    """Return a photo as a JPEG."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models are kept that were prepared: empty for the first system, as on a new machine."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=WAYS)
def system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, cache: Path
) -> Iterator[System]:
    """A front-end with two workers of the bundled model; each test runs in both ways."""
    way = str(request.param)
    with running(way, tmp_path_factory.mktemp(way), cache) as one:
        yield one


@pytest.fixture(scope="module")
def redis(system: System) -> RedisServer:
    return system.redis


@pytest.fixture
def address(system: System, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where it is; who may call is in the environment, as a person would have it."""
    for name, value in system.caller.environment.items():
        monkeypatch.setenv(name, value)
    return system.address


@pytest.fixture
async def stub(system: System) -> AsyncIterator["prediction_pb2_grpc.PredictionServiceAsyncStub"]:
    async with system.channel() as channel:
        yield system.stub(channel)


Grpcurl = Callable[..., str]


@pytest.fixture
def grpcurl(system: System) -> Grpcurl:
    """The real grpcurl; returns what it prints."""
    program = shutil.which("grpcurl", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("the package has no grpcurl for this platform")

    def run(address: str, *arguments: str, given: str = "") -> str:
        options = [*system.caller.grpcurl_options, *(["-d", "@"] if given else [])]
        done = subprocess.run(
            [program, *options, address, *arguments],
            input=given,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    return run


def test_grpcurl_lists_the_services(address: str, grpcurl: Grpcurl) -> None:
    services = grpcurl(address, "list").split()
    assert {
        "prediction.v1.PredictionService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    } <= set(services)
    assert "rpc PredictStream" in grpcurl(address, "describe", "prediction.v1.PredictionService")


def test_grpcurl_predicts_from_json(address: str, grpcurl: Grpcurl) -> None:
    image = base64.b64encode(jpeg_of(sample("coffee.png"))).decode()
    answer = json.loads(
        grpcurl(
            address,
            "prediction.v1.PredictionService/Predict",
            given=json.dumps({"image": image}),
        )
    )
    best = answer["predictions"][0]
    assert (best.get("classId", best.get("class_id")), best["label"]) == (967, "espresso")
    assert set(answer["timing"]) >= {"queue", "decode", "inference", "total"}


@pytest.mark.parametrize("name", SAMPLES)
async def test_sample_photos_get_their_class(
    stub: "prediction_pb2_grpc.PredictionServiceAsyncStub", name: str
) -> None:
    image = sample(name).read_bytes()
    response = await stub.Predict(pb.PredictRequest(image=image, top_k=3, include_scores=True))
    best = response.predictions[0]
    assert (best.class_id, best.label) == SAMPLES[name]
    assert len(response.predictions) == 3
    assert sum(response.scores) == pytest.approx(1, abs=1e-3)
    timing = response.timing
    assert timing.batch_size >= 1
    assert timing.attempt == 1
    assert timing.inference.ToMicroseconds() > 0
    assert timing.decode.ToMicroseconds() > 0
    work_us = timing.decode.ToMicroseconds() + timing.inference.ToMicroseconds()
    assert work_us <= timing.total.ToMicroseconds()
    # The queue's share is counted on Redis's clock, which a worker knows to half a round trip.
    queue_us = timing.queue.ToMicroseconds()
    assert queue_us + work_us <= timing.total.ToMicroseconds() + CLOCK_ERROR_US


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that says it is large and ends after saying so."""
    fields = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + fields
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )


def broken_images() -> list[tuple[bytes, str]]:
    """Return twenty images that are broken in different ways, each with its reason."""
    jpeg = jpeg_of(sample("coffee.png"))
    png = sample("chelsea.png").read_bytes()
    return [
        (b"", "IMAGE_EMPTY"),
        (b"just some text\n", "IMAGE_FORMAT_UNSUPPORTED"),
        (b"<!DOCTYPE html><html><body>not found</body></html>", "IMAGE_FORMAT_UNSUPPORTED"),
        (b'{"error": "not an image"}', "IMAGE_FORMAT_UNSUPPORTED"),
        (b"%PDF-1.7\n1 0 obj\n", "IMAGE_FORMAT_UNSUPPORTED"),
        (b"PK\x03\x04" + bytes(100), "IMAGE_FORMAT_UNSUPPORTED"),
        (bytes(1000), "IMAGE_FORMAT_UNSUPPORTED"),
        (b"II*\x00" + bytes(100), "IMAGE_FORMAT_UNSUPPORTED"),  # TIFF
        (png_header(50_000, 50_000), "IMAGE_TOO_LARGE"),
        (png_header(100_000, 2_000), "IMAGE_TOO_LARGE"),
        (png_header(10, 10), "IMAGE_UNDECODABLE"),
        (jpeg[: len(jpeg) // 2], "IMAGE_UNDECODABLE"),
        (jpeg[: len(jpeg) // 10], "IMAGE_UNDECODABLE"),
        (jpeg[:20], "IMAGE_UNDECODABLE"),
        (jpeg[:3], "IMAGE_UNDECODABLE"),
        (png[: len(png) // 2], "IMAGE_UNDECODABLE"),
        (png[:60], "IMAGE_UNDECODABLE"),
        (b"GIF89a" + bytes(3), "IMAGE_UNDECODABLE"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "IMAGE_UNDECODABLE"),
        (b"BM" + bytes(30), "IMAGE_UNDECODABLE"),
    ]


async def test_two_hundred_images_in_one_stream_with_twenty_broken_ones(
    stub: "prediction_pb2_grpc.PredictionServiceAsyncStub", redis: RedisServer
) -> None:
    photos = [(jpeg_of(sample(name)), SAMPLES[name][0]) for name in SAMPLES]
    broken = broken_images()
    assert len(broken) == 20

    async def requests() -> AsyncIterator[pb.PredictStreamRequest]:
        for index in range(180):
            request = pb.PredictRequest(
                image=photos[index % len(photos)][0], request_id=f"p{index}"
            )
            yield pb.PredictStreamRequest(request=request)
            if index % 9 == 0:
                image, _ = broken[index // 9]
                request = pb.PredictRequest(image=image, request_id=f"b{index // 9}")
                yield pb.PredictStreamRequest(request=request)

    classes: dict[str, int] = {}
    reasons: dict[str, str] = {}
    call = stub.PredictStream(requests(), timeout=120)
    async for outcome in call:
        if outcome.HasField("response"):
            classes[outcome.request_id] = outcome.response.predictions[0].class_id
        else:
            assert outcome.failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
            reasons[outcome.request_id] = details_of_status(outcome.failure)["ErrorInfo"].reason
    assert await call.code() == grpc.StatusCode.OK
    assert classes == {f"p{i}": photos[i % len(photos)][1] for i in range(180)}
    assert reasons == {f"b{i}": reason for i, (_, reason) in enumerate(broken)}
    with redis.client() as client:
        assert not any(client.xlen(stream) for stream in keys.job_streams(MODEL))
        assert int(client.hget(keys.load(MODEL), "bytes")) == 0
        totals = {key: int(count) for key, count in client.hgetall(keys.totals(MODEL)).items()}
    assert totals.pop(b"accepted") == sum(totals.values())


def test_the_command_line_labels_a_folder(address: str, tmp_path: Path) -> None:
    for name in SAMPLES:
        shutil.copy(sample(name), tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    done = subprocess.run(
        [sys.executable, "-m", "client.cli", "predict", "-s", address, "--json", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 3, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    best = {
        Path(line["image"]).name: line["labels"][0]["class_id"]
        for line in lines
        if "labels" in line
    }
    assert best == {name: class_id for name, (class_id, _) in SAMPLES.items()}
    assert len(lines) == len(SAMPLES) + 1
