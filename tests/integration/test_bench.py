"""The benchmark itself, as short as it can be: that it measures, and what it refuses to measure."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.bench import system_side
from tests.bench.document import BEGIN, END, write_document
from tests.bench.h2load import LoadFailed, missing
from tests.bench.loads import Stream, Unary
from tests.bench.payloads import payload, request, write_body
from tests.bench.results import Results
from tests.bench.rig import Rig
from tests.processes import ROOT
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

needs_h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason=missing())


@needs_h2load
@pytest.mark.timeout(120)
def test_one_round_of_the_relay_has_every_figure_and_makes_a_document(tmp_path: Path) -> None:
    kept = tmp_path / "results.json"
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "tests.bench", "relay"),
            *("--rounds", "1", "--seconds", "0.2", "--json", str(kept)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    results = Results.read(kept)
    (relay,) = results.outcomes.values()
    assert [len(line.values) for line in relay.lines] == [1, 1, 1, 1]
    assert all(value.value for line in relay.lines for value in line.values)
    assert [(run.label, run.side, run.concurrency) for run in relay.runs] == [
        (label, side, concurrency)
        for label, concurrency in (("10 KB", 1), ("10 KB", 64), ("100 KB", 64))
        for side in ("Despacho", "bare echo")
    ]
    assert all(0 < run.p50_ms <= run.p99_ms <= run.p999_ms for run in relay.runs)
    assert set(relay.runs[0].cpu_ms) == {"front-end", "worker", "Redis", "load"}
    document = tmp_path / "benchmarks.md"
    document.write_text(f"before\n{BEGIN}stale\n{END}after\n")
    write_document(document, tmp_path / "plots", results)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    assert text.count("`make bench BENCH=relay`") >= len(relay.lines)
    assert "not measured" in text


async def test_a_stream_is_driven_and_counted(tmp_path: Path) -> None:
    async with Rig(RedisServer(tmp_path), tmp_path) as rig:
        front_end, worker = await rig.no_op()
        side = system_side(rig, {"front-end": [front_end.pid], "worker": [worker.pid]})
        run = Stream(side, "1 KB", 1000, window=8).run(0, 0.1)
        assert run.requests >= 8
        assert rig.totals()["completed"] >= run.requests + 64


@needs_h2load
async def test_calls_that_fail_are_noticed_although_h2load_takes_them_for_answers(
    tmp_path: Path,
) -> None:
    async with Rig(RedisServer(tmp_path), tmp_path) as rig:
        await rig.no_op()
        side = system_side(rig, {})
        damaged = payload(1000)[:-1]
        body = write_body(tmp_path / "body", request(damaged))
        with pytest.raises(LoadFailed, match="'failed': 50"):
            Unary(side, "damaged", body, 1).warm_up()
