"""Servers that people would use instead: how each is started and asked."""

import json
import os
import signal
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import grpc
import psutil

from deploy.address import free_port
from inference import grpc_predict_v2_pb2 as v2
from inference import grpc_predict_v2_pb2_grpc
from prediction.v1 import prediction_pb2 as pb
from prediction.v1 import prediction_pb2_grpc
from tests.bench.h2load import PREDICT, LoadFailed, Target
from tests.bench.loads import Side
from tests.bench.payloads import framed
from tests.bench.peers import work
from tests.bench.usage import family
from tests.environments import python_of
from tests.processes import ROOT, Process
from tests.redis_server import RedisServer
from worker.settings import WorkerSettings

HERE: Final = Path(__file__).parent
FOLDER: Final = ROOT / ".venv-peers"
STARTED_S: Final = 120.0
ENDED_S: Final = 20.0
LOOK_S: Final = 0.2
ASK_S: Final = 10.0
LAST_WORDS: Final = 2000
"""Characters of a log."""

BOUNDARY: Final = "7d1c0f5ea84b4c33"
"""Between the parts of a form: what no image contains."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One of them."""

    name: str
    """Of its files here, and of its package."""

    title: str
    target: Target

    body: Callable[[bytes], bytes]
    """Makes of an image what is posted."""

    answer: Callable[[str, bytes], int]
    """Asks an address about an image; returns the best class."""

    how: str = ""
    """What else is to be known of it."""

    can_batch: bool = True
    """Whether images can wait for each other."""

    needs_redis: bool = False

    @property
    def version(self) -> str:
        """Of its package."""
        lines = requirements_of(self.name).read_text().splitlines()
        pins = dict(line.lower().split("==") for line in lines if "==" in line)
        return pins[self.name]


def requirements_of(name: str) -> Path:
    """Return the file with what a peer needs."""
    return HERE / "requirements" / f"{name}.txt"


@dataclass(frozen=True, slots=True)
class Told:
    """How a peer is to be run."""

    engine: str
    workers: int
    batch: int


@contextmanager
def started(peer: Peer, told: Told, folder: Path, image: bytes) -> Iterator[Side]:
    """Enter a peer that answers.

    Args:
        peer: which one.
        told: how it is run.
        folder: an empty one, for its log and whatever it keeps in the home of its user.
        image: that it is asked about, to see whether it is ready.

    Raises:
        CannotInstall: its packages are not to be had.
        LoadFailed: it does not answer.
    """
    python = python_with_ours(peer.name)
    address = f"127.0.0.1:{free_port()}"
    redis = RedisServer(folder)
    if peer.needs_redis:
        redis.start()
    process = Process(
        ["-m", f"tests.bench.peers.{peer.name}_server", address.partition(":")[2]],
        {
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "protos" / "gen"))),
            "HOME": str(folder),
            "WORKER_CACHE_DIR": str(WorkerSettings().cache_dir),
            work.ENGINE: told.engine,
            work.WORKERS: str(told.workers),
            work.BATCH: str(told.batch),
            work.REDIS: redis.url,
        },
        log_file=folder / "log",
        python=str(python),
    )
    try:
        wait_until_answered(peer, process, address, image)
        together = f"up to {told.batch} at a time" if told.batch > 1 else "one at a time"
        name = ", ".join(filter(None, (f"{peer.title} {peer.version}", peer.how, together)))
        pids = [process.pid, *([redis.pid] if peer.needs_redis else ())]
        yield Side(name, address, {"all": pids})
    finally:
        end(process)
        if peer.needs_redis:
            redis.stop()


def python_with_ours(name: str) -> Path:
    """Return the Python of a peer's environment, which finds our packages after its own."""
    python = python_of(requirements_of(name), FOLDER)
    (own,) = python.parents[1].glob("lib/python*/site-packages")
    (own / "despacho.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def wait_until_answered(peer: Peer, process: Process, address: str, image: bytes) -> None:
    """Ask until there is an answer.

    Raises:
        LoadFailed: there is none.
    """
    limit = time.monotonic() + STARTED_S
    while True:
        try:
            peer.answer(address, image)
        except (OSError, grpc.RpcError) as error:
            if process.exit_code is not None or time.monotonic() > limit:
                words = process.log[-LAST_WORDS:]
                raise LoadFailed(f"{peer.title} does not answer:\n{words}") from error
            time.sleep(LOOK_S)
        else:
            return


def end(process: Process) -> None:
    """End a peer with all that it has started, some of which may outlive it."""
    with suppress(psutil.NoSuchProcess):
        members = family(process.pid)
        process.send(signal.SIGTERM)
        _, left = psutil.wait_procs(members, ENDED_S)
        for each in left:
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.clean_up()


def as_it_is(image: bytes) -> bytes:
    """Return the body of a post."""
    return image


def as_form(image: bytes) -> bytes:
    """Return a form with one file, `image`."""
    head = (
        f"--{BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="image"; filename="image.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()


def by_http(target: Target, body: Callable[[bytes], bytes]) -> Callable[[str, bytes], int]:
    """Return what posts an image."""
    headers = dict(header.split(": ", 1) for header in target.headers)

    def answer(address: str, image: bytes) -> int:
        url = f"http://{address}/{target.path}"
        request = urllib.request.Request(url, body(image), headers)
        with urllib.request.urlopen(request, timeout=ASK_S) as response:  # noqa: S310
            return best_of(response.read())

    return answer


def best_of(text: bytes) -> int:
    """Return the class that is named first in an answer of `work`."""
    return int(json.loads(text)[0]["class_id"])


def to_infer(image: bytes) -> v2.ModelInferRequest:
    """Return an image as the Open Inference Protocol has it."""
    tensor = v2.ModelInferRequest.InferInputTensor(
        name="image",
        datatype="BYTES",
        shape=[1, 1],
        contents=v2.InferTensorContents(bytes_contents=[image]),
    )
    return v2.ModelInferRequest(model_name="model", inputs=[tensor])


def infer(address: str, image: bytes) -> int:
    """Ask by the Open Inference Protocol."""
    with grpc.insecure_channel(address) as channel:
        stub = grpc_predict_v2_pb2_grpc.GRPCInferenceServiceStub(channel)
        response = stub.ModelInfer(to_infer(image), timeout=ASK_S)
    return best_of(response.outputs[0].contents.bytes_contents[0])


def to_predict(image: bytes) -> pb.PredictRequest:
    """Return a request of ours, for as many classes as `work` returns."""
    return pb.PredictRequest(image=image, top_k=work.TOP_K)


def predict(address: str, image: bytes) -> int:
    """Ask by our own method."""
    with grpc.insecure_channel(address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        response = stub.Predict(to_predict(image), timeout=ASK_S)
    return response.predictions[0].class_id


def http_peer(
    name: str, title: str, *, path: str = "predict", is_form: bool = False, can_batch: bool = True
) -> Peer:
    """Return a peer that is asked in HTTP/1.1."""
    kind = f"multipart/form-data; boundary={BOUNDARY}" if is_form else "image/jpeg"
    target = Target(path, (f"content-type: {kind}",), is_http1=True)
    body = as_form if is_form else as_it_is
    return Peer(name, title, target, body, by_http(target, body), can_batch=can_batch)


PEERS: Final = (
    http_peer("mosec", "mosec", path="inference"),
    http_peer("litserve", "LitServe", is_form=True),
    http_peer("bentoml", "BentoML", can_batch=False),
    Peer(
        "mlserver",
        "MLServer",
        Target("inference.GRPCInferenceService/ModelInfer"),
        lambda image: framed(to_infer(image)),
        infer,
        how="gRPC",
    ),
    Peer(
        "ray",
        "Ray Serve",
        PREDICT,
        lambda image: framed(to_predict(image)),
        predict,
        how="gRPC",
    ),
    replace(http_peer("flask", "Flask"), how="a list in Redis, polled", needs_redis=True),
)
