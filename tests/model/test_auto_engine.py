"""The engine is chosen by trying all that are installed, on the bundled model."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest

from despacho.job.v1.job_pb2 import ModelCard
from dispatch import keys
from prediction.v1 import prediction_pb2 as pb
from tests.processes import Process
from tests.redis_server import RedisServer
from tests.stack import Stack, details_of, reason_of
from worker.agreement import photos
from worker.decode import decode
from worker.engines.installed import version_of
from worker.model_directory import load_engine, open_model
from worker.model_spec import InputRule, ModelError, ModelFile, ModelSpec
from worker.prepared_folder import locked
from worker.tune import store
from worker.tune.auto import candidates_of, chosen, tuned
from worker.tune.table import Candidate, mode_of
from worker.tune.trial import Trial, TrialFailed

pytestmark = [pytest.mark.model, pytest.mark.timeout(480)]

MODEL = "efficientnet-lite0"
COFFEE = Path(__file__).parents[2] / "docs" / "examples" / "coffee.jpg"

# The whole way, but one short round of it: what is tested is not how fast it is.
CHOOSE = f"""
import sys, pathlib
from worker.model_directory import open_model
from worker.tune import measuring
from worker.tune.auto import chosen
measuring.ROUNDS, measuring.ROUND_S, measuring.BATCH_SIZES = 1, 0.05, (1, 4)
cache = pathlib.Path(sys.argv[1])
spec = open_model("{MODEL}", cache).with_engine("auto", None)
found = chosen(spec, threads=0, max_batch_size=0, cache_dir=cache)
print(found.engine, found.default_batch_size, "tensorflow" in sys.modules)
"""


@pytest.fixture(scope="module", autouse=True)
def engines() -> None:
    for name in ("litert", "openvino"):
        if version_of(name) is None:
            pytest.skip(f"{name} is not installed: requirements-engines.txt")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """Two workers that start at the same time: the cache, what both chose, what they logged."""
    cache = tmp_path_factory.mktemp("cache")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", CHOOSE, cache],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        outputs = [worker.communicate(timeout=400)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    return cache, [output.splitlines()[-1] for output in outputs], "".join(outputs)


def auto(cache: Path) -> ModelSpec:
    return open_model(MODEL, cache).with_engine("auto", None)


def test_of_two_workers_one_measures_and_both_choose_the_same(
    measured: tuple[Path, list[str], str],
) -> None:
    cache, said, log = measured
    assert log.count("measuring engines") == 1
    assert log.count("engine chosen") == 2
    assert said[0] == said[1]
    engine, batch_size, has_tensorflow = said[0].split()
    assert engine in {"tensorflow", "litert", "openvino"}
    assert batch_size == "16"  # a limit: each worker measures for itself
    assert has_tensorflow == "False"
    assert chosen(auto(cache), threads=0, max_batch_size=0, cache_dir=cache).engine == engine


def test_every_engine_was_measured_and_agrees_on_real_photos(
    measured: tuple[Path, list[str], str],
) -> None:
    cache, _, _ = measured
    table = store.read(store.path_of(auto(cache), cache))
    assert table.failures == ()
    assert {(row.candidate, row.batch_size) for row in table.rows} == {
        (candidate, size) for candidate in candidates_of(auto(cache)) for size in (1, 4)
    }
    for row in table.rows:
        if row.candidate.engine == "tensorflow":
            assert row.agreement is None
        else:
            assert row.agreement is not None
            assert row.agreement.photos == 12
            assert row.agreement.max_difference < 1e-4
            assert row.agreement.same_best == 1


@pytest.mark.parametrize("name", ["litert", "openvino"])
def test_coffee_is_espresso_whoever_looks(measured: tuple[Path, list[str], str], name: str) -> None:
    cache, _, _ = measured
    spec = ModelSpec.model_validate(dict(auto(cache)) | {"engine": name})
    engine = load_engine(spec, threads=1, cache_dir=cache)
    image = decode(COFFEE.read_bytes(), spec.input, max_pixels=10_000_000)
    (scores,) = engine.predict(image[None])
    assert spec.labels[int(scores.argmax())] == "espresso"
    assert scores.sum() == pytest.approx(1, abs=1e-4)
    assert scores.max() == pytest.approx(0.95, abs=0.02)


def test_a_worker_that_has_chosen_another_has_no_tensorflow_in_its_memory(
    measured: tuple[Path, list[str], str], redis_server: RedisServer
) -> None:
    cache, _, _ = measured
    worker = Process(
        ["-m", "worker"],
        {
            "REDIS_URL": redis_server.url,
            "WORKER_CACHE_DIR": str(cache),
            "WORKER_ENGINE": "openvino",
            "WORKER_PROCESSES": "1",
            "WORKER_LOG_FORMAT": "json",
        },
    )
    try:
        worker.wait_for_line("worker ready")
        assert "engine agrees with TensorFlow" in worker.log
        maps = Path(f"/proc/{worker.pid}/maps")
        if maps.exists():
            assert "openvino" in maps.read_text()
            assert "libtensorflow" not in maps.read_text()
    finally:
        worker.clean_up()


async def test_callers_of_a_model_whose_engines_are_measured_are_told_to_come_back(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    stack = Stack(own_redis, tmp_path)
    cache = tmp_path / "cache"
    cache.mkdir()
    settings = {"REDIS_URL": own_redis.url, "WORKER_CACHE_DIR": str(cache)}
    settings |= {"WORKER_ENGINE": "auto", "WORKER_PROCESSES": "1"}
    request = pb.PredictRequest(model=MODEL, image=COFFEE.read_bytes())
    try:
        stack.start_server(no_worker_grace_s=0)
        # As if another worker measured, for as long as this test wants.
        with locked(store.path_of(auto(cache), cache).with_suffix(".lock")):
            worker = stack.start(["-m", "worker"], settings)
            refusals: list[grpc.aio.AioRpcError] = []

            async def is_known() -> bool:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stack.stub().Predict(request, timeout=10, wait_for_ready=True)
                refusals.append(refused.value)
                return refused.value.code() is not grpc.StatusCode.NOT_FOUND

            await stack.until(is_known, 60)
            assert reason_of(refusals[-1]) == "MODEL_LOADING"
            assert details_of(refusals[-1])["RetryInfo"].retry_delay.seconds > 0
            assert worker.exit_code is None
            assert worker.terminate() == 0
    finally:
        await stack.close()


def test_a_worker_that_has_chosen_says_so(
    measured: tuple[Path, list[str], str], redis_server: RedisServer
) -> None:
    cache, said, _ = measured
    settings = {"REDIS_URL": redis_server.url, "WORKER_CACHE_DIR": str(cache)}
    settings |= {"WORKER_ENGINE": "auto", "WORKER_PROCESSES": "1"}
    worker = Process(["-m", "worker"], settings)
    try:
        worker.wait_for_line("worker ready")
        with redis_server.client() as redis:
            card = ModelCard.FromString(redis.get(keys.card(MODEL)))
        assert f"{card.engine} {card.max_batch_size} False" == said[0]
    finally:
        worker.clean_up()


def test_a_damaged_table_is_measured_again(
    measured: tuple[Path, list[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, _, _ = measured
    spec = auto(cache)
    path = store.path_of(spec, cache)
    before = path.read_text()
    path.write_text(before[: len(before) // 2])
    shorten(monkeypatch)
    try:
        # Only the candidate that is quickest to load.
        only = [candidate for candidate in candidates_of(spec) if candidate.engine == "openvino"]
        monkeypatch.setattr("worker.tune.auto.candidates_of", lambda _: only)
        table = tuned(spec, [mode_of(0)], cache)
        assert [row.candidate for row in table.rows] == only
        assert store.read(path) == table
    finally:
        path.write_text(before)


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.tune.measuring.ROUNDS", 1)
    monkeypatch.setattr("worker.tune.measuring.ROUND_S", 0.01)
    monkeypatch.setattr("worker.tune.measuring.BATCH_SIZES", (1,))


def test_an_engine_that_crashes_is_a_failed_trial_and_nothing_else(
    measured: tuple[Path, list[str], str],
) -> None:
    cache, _, _ = measured
    spec = auto(cache).with_engine("openvino", None)
    with Trial(spec, processes=1, threads=1, cache_dir=cache) as trial:
        found = trial.load()
        assert found is not None
        assert trial.images_per_s(1, 0.01) > 0
        (process,) = trial._processes
        os.kill(process.pid, signal.SIGSEGV)
        with pytest.raises(TrialFailed, match="it crashed: exit code -11"):
            trial.images_per_s(1, 0.01)
    assert process.poll() is not None


def test_an_engine_that_cannot_run_the_model_is_rejected_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch)
    (tmp_path / "model.keras").write_bytes(b"no zip file")
    spec = ModelSpec(
        name="broken",
        version="1",
        engine="auto",
        origin=ModelFile(path=tmp_path / "model.keras"),
        labels=("a", "b"),
        input=InputRule(width=8, height=8),
    )
    only = [Candidate(engine="litert", version=str(version_of("litert")))]
    monkeypatch.setattr("worker.tune.auto.candidates_of", lambda _: only)
    table = tuned(spec, [mode_of(0)], tmp_path / "cache")
    (failure,) = table.failures
    assert "cannot be converted for litert" in failure.reason
    assert "model.keras" in failure.reason
    assert "\n" not in failure.reason
    assert not list((tmp_path / "cache").glob("broken-litert-*/"))[1:]
    # TensorFlow is left, and says what is wrong with the file.
    monkeypatch.undo()
    with pytest.raises(ModelError, match="auto cannot be loaded as it is"):
        load_engine(spec, threads=1, cache_dir=tmp_path / "cache")


def test_an_engine_alone_is_chosen_without_being_measured(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.touch()
    spec = ModelSpec(
        name="small",
        version="1",
        engine="auto",
        origin=ModelFile(path=path),
        labels=("a", "b"),
        input=InputRule(width=8, height=8),
    )
    found = chosen(spec, threads=1, max_batch_size=0, cache_dir=tmp_path / "cache")
    assert (found.engine, found.default_batch_size) == ("litert", 16)
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_means_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "cache"
    assert chosen(auto(cache), threads=0, max_batch_size=0, cache_dir=cache).engine == "tensorflow"


def test_the_command_prints_what_is_known(measured: tuple[Path, list[str], str]) -> None:
    cache, _, _ = measured
    spec = auto(cache)
    path = store.path_of(spec, cache)
    table = store.read(path)
    modes = [mode_of(1), mode_of(0)]
    # As if both modes had been measured.
    rows = [row.model_copy(update={"mode": mode}) for row in table.rows for mode in modes]
    before = path.read_text()
    store.write(path, table.model_copy(update={"rows": tuple(rows)}))
    try:
        done = [
            subprocess.run(
                [sys.executable, "-m", "client.cli", "tune", MODEL, *flags],
                env=os.environ | {"WORKER_CACHE_DIR": str(cache)},
                check=True,
                capture_output=True,
                text=True,
                timeout=60,
            )
            for flags in ([], ["--json"])
        ]
    finally:
        path.write_text(before)
    report = json.loads(done[1].stdout)
    assert {row["engine"] for row in report["rows"]} == {"tensorflow", "litert", "openvino"}
    assert sum(row["chosen"] for row in report["rows"]) == len(set(modes))
    for engine in ("tensorflow", "litert", "openvino"):
        assert engine in done[0].stdout
    assert "images/s" in done[0].stdout


def test_photos_are_what_the_model_takes() -> None:
    images = photos(InputRule(width=32, height=24))
    assert images.shape == (12, 24, 32, 3)
    assert images.dtype == np.uint8
    assert np.array_equal(images[6:], images[:6, :, ::-1])
