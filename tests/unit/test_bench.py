import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from tests.bench import h2load, loads
from tests.bench.bench import compared, rate_ratio, values_shown
from tests.bench.figures import growth, percentile, significant, spread
from tests.bench.h2load import Load
from tests.bench.in_process import loaded
from tests.bench.loads import Shared, Side
from tests.bench.report import line_cells, markdown_table, run_rows, text_report
from tests.bench.results import (
    Bound,
    Disturbance,
    Line,
    Machine,
    Outcome,
    Results,
    Run,
    Table,
    Value,
    undisturbed,
)
from tests.bench.scenario_apart import on_core
from tests.bench.usage import Meter
from worker.machine import usable_cores

STOLEN = Disturbance(steal=0.2)

OUTPUT = """\
finished in 1.50s, 2.00 req/s, 76.06KB/s
requests: 3 total, 3 started, 3 done, 3 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 3 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 17.30KB (17716) total, 600B (600) headers (space savings 92.59%), 11.52KB (360) data
"""
LOG = "1000000\t200\t1500000\n1000500\t200\t700\n2000000\t200\t250\n"


def line(*values: Value, bound: Bound = Bound.AT_LEAST, target: float = 0.8) -> Line:
    return Line(what="speed", bound=bound, target=target, unit=" x", values=list(values))


def values(*numbers: float, disturbance: Disturbance | None = None) -> list[Value]:
    return [Value(value=number, disturbance=disturbance or Disturbance()) for number in numbers]


def run(side: str, rate: float, number: int = 0, disturbance: Disturbance | None = None) -> Run:
    return Run(
        label="10 KB",
        side=side,
        number=number,
        concurrency=64,
        requests=round(rate * 2),
        seconds=2,
        p50_ms=1,
        p99_ms=2,
        p999_ms=3,
        cpu_ms={"front-end": 0.25},
        rss_mb={"front-end": 64},
        disturbance=disturbance or Disturbance(),
    )


def outcome(*lines: Line, runs: tuple[Run, ...] = ()) -> Outcome:
    return Outcome(
        scenario="relay",
        title="The relay",
        commit="abc",
        is_dirty=False,
        began=datetime(2026, 1, 2, tzinfo=UTC),
        took_s=1,
        machine=Machine(
            processor="P",
            cores=2,
            memory_gb=4,
            system="Linux",
            python="3.11",
            packages={},
            redis="Valkey 9",
        ),
        settings={"rounds": "1"},
        runs=list(runs),
        lines=list(lines),
        tables=[Table(title="More", heads=["what", "much"], rows=[["a", "1"]])],
        notes=["A note."],
    )


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (0.999, 100), (1, 100), (0.001, 1)]
)
def test_percentile_is_the_nearest_rank(share: float, expected: float) -> None:
    assert percentile(range(1, 101), share) == expected


def test_the_only_value_is_every_percentile() -> None:
    assert percentile([7.0], 0.5) == percentile([7.0], 0.999) == 7.0


def test_spread_is_of_all_rounds() -> None:
    assert spread([3, 1, 2, 9]) == (1, 2.5, 9)


def test_growth_leaves_out_the_beginning_and_single_peaks() -> None:
    filling = [10.0, 60.0] + [100.0] * 58
    assert growth(filling) == 1
    assert growth([*filling[:-1], 500.0]) == 1
    assert growth([100 + step for step in range(60)]) == pytest.approx(1.375, abs=0.01)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "0"),
        (4523.4, "4,523"),
        (67.23, "67.2"),
        (1.5, "1.50"),
        (0.456, "0.456"),
        (0.0312, "0.0312"),
        (100, "100"),
        (-8.2, "-8.20"),
    ],
)
def test_numbers_have_three_digits(number: float, expected: str) -> None:
    assert significant(number) == expected


def test_the_median_decides_whether_a_target_is_reached() -> None:
    assert line(*values(0.5, 0.81, 0.9)).is_reached
    assert not line(*values(0.5, 0.79, 0.9)).is_reached
    assert line(*values(0.5, 0.79, 0.9), bound=Bound.AT_MOST).is_reached
    assert line(*values(0.8)).is_reached
    assert line(*values(0.8), bound=Bound.AT_MOST).is_reached


def test_disturbed_rounds_do_not_count_beside_others() -> None:
    found = line(*values(0.9, 0.95), *values(0.1, 0.1, 0.1, disturbance=STOLEN))
    assert list(found.seen) == pytest.approx([0.9, 0.925, 0.95])
    assert found.is_reached
    assert not found.is_disturbed


def test_rounds_that_were_all_disturbed_are_shown_as_such() -> None:
    found = line(*values(0.1, 0.3, disturbance=Disturbance(foreign=0.5)))
    assert found.seen.median == pytest.approx(0.2)
    assert line_cells(outcome(), found) == [
        "speed",
        "≥ 0.8 x",
        "0.200 [0.100 - 0.300] x",
        "**not reached**, disturbed",
        "`make bench BENCH=relay`",
    ]


def test_ratios_are_taken_within_a_round_and_as_disturbed_as_the_worse_run() -> None:
    rounds = [
        [run("ours", 80), run("theirs", 100, disturbance=STOLEN)],
        [run("ours", 50), run("theirs", 50)],
    ]
    found = compared(rounds, rate_ratio)
    assert [each.value for each in found] == [0.8, 1.0]
    assert [each.disturbance.is_too_much for each in found] == [True, False]


def test_only_rounds_that_count_are_shown() -> None:
    stolen = values(0.1, disturbance=STOLEN)
    assert values_shown([*values(0.8, 0.6, 0.7), *stolen]) == "0.700 [0.600 - 0.800], 3 of 4 rounds"
    assert values_shown(stolen) == "0.100 [0.100 - 0.100], disturbed"


def test_calm_rounds_of_one_side_are_not_shown_beside_disturbed_ones_of_another() -> None:
    ours = [run("ours", 130), run("ours", 60, 1, STOLEN), run("ours", 70, 2, STOLEN)]
    theirs = [run("theirs", 80, number, STOLEN) for number in range(3)]
    rates = {row[1]: row[3] for row in run_rows([*ours, *theirs])}
    assert rates == {
        "ours": "70.0 [60.0 - 130], 2 disturbed",
        "theirs": "80.0 [80.0 - 80.0], 3 disturbed",
    }


def test_an_engine_in_process_knows_the_batches_that_a_worker_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    class Tried:
        def warm_up(self, batch_sizes: Sequence[int]) -> None:
            tried.extend(batch_sizes)
            time.sleep(0.002)

    monkeypatch.setattr("tests.bench.in_process.load_engine", lambda *_, **__: Tried())
    loaded("openvino", threads=1)
    assert {1, 2} <= set(tried)


def test_a_load_is_shared_by_its_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str, int, int, int]] = []

    def drive(
        address: str, body: Path, *, requests: int, concurrency: int, connections: int
    ) -> Load:
        asked.append((address, body.read_text(), requests, concurrency, connections))
        seconds = {"one": 2.0, "two": 1.0}[address]
        return Load(requests, seconds, [seconds], data_bytes=100 * requests)

    monkeypatch.setattr(loads, "drive", drive)
    body = tmp_path / "body"
    body.write_text("an image")
    side = Side("bare servers", "", {})
    found = Shared(side, "10 KB", body, 32, addresses=["one", "two"]).run(0, 1)
    # The warm-up has shown that 192 calls take a second.
    assert sorted(asked[2:]) == [(name, "an image", 96, 16, 2) for name in ("one", "two")]
    assert found.requests == 192
    assert found.rate == pytest.approx(96 / 2 + 96 / 1, rel=0.001)
    # As many addresses as there are cores may be more than there are connections.
    asked.clear()
    Shared(side, "10 KB", body, 2, addresses=["one", "two"] * 4).warm_up()
    assert {one[3:] for one in asked} == {(1, 1)}


@pytest.mark.skipif(sys.platform != "linux", reason="programs can be kept on a core on Linux only")
def test_what_is_started_on_a_core_stays_there() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    where = [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]
    with on_core(core):
        assert subprocess.check_output(where, text=True).split() == [str(core)]
    assert os.sched_getaffinity(0) == before


def test_rounds_of_a_load_are_one_row() -> None:
    runs = [run("ours", 80), run("theirs", 99), run("ours", 60, 1), run("ours", 10, 2, STOLEN)]
    ours, theirs = run_rows(runs)
    assert ours[1:4] == ["ours", "64", "70.0 [60.0 - 80.0], 1 disturbed"]
    assert ours[-2:] == ["front-end 0.250", "front-end 64.0"]
    assert theirs[1] == "theirs"


def test_pictures_leave_out_disturbed_rounds_beside_others() -> None:
    calm, stolen = run("ours", 80), run("ours", 10, 1, STOLEN)
    assert undisturbed([calm, stolen]) == [calm]
    assert undisturbed([stolen]) == [stolen]


def test_columns_of_a_text_table_are_aligned() -> None:
    report = text_report([outcome(line(*values(0.9)), line(*values(0.1)))])
    table = report.splitlines()[-3:]
    ends = [row.index("`make") + len("`make") for row in table[1:]]
    assert all(one == other for one, other in pairwise(ends))
    assert "A note." in report


def test_a_document_table_has_as_many_cells_in_each_row() -> None:
    rows = markdown_table(["a", "b", "c"], [["1", "2", "3"], ["4", "5", "6"]]).splitlines()
    assert {row.count("|") for row in rows} == {4}


def test_results_survive_the_file_and_are_replaced_by_scenario(tmp_path: Path) -> None:
    path = tmp_path / "there" / "results.json"
    assert Results.read(path).outcomes == {}
    older = outcome(line(*values(0.1)), runs=(run("ours", 1),))
    Results().with_outcomes([older]).write(path)
    assert Results.read(path).outcomes == {"relay": older}
    newer = outcome(line(*values(0.9)))
    other = newer.model_copy(update={"scenario": "other"})
    found = Results.read(path).with_outcomes([newer, other])
    assert found.outcomes == {"relay": newer, "other": other}


def test_h2load_is_read_to_the_microsecond() -> None:
    load = h2load.parsed(OUTPUT, LOG, 3)
    assert load.seconds == pytest.approx(1.5)
    assert load.latencies_ms == [0.25, 0.7, 1500]
    assert load.data_bytes == 360


@pytest.mark.parametrize(
    ("output", "log"),
    [
        (OUTPUT.replace("3 succeeded", "2 succeeded"), LOG),
        (OUTPUT, LOG.replace("\t200\t250", "\t503\t250")),
        (OUTPUT, LOG.rpartition("2000000")[0]),
        ("nothing", LOG),
    ],
    ids=["not all succeeded", "another status", "one is not in the log", "no output"],
)
def test_a_load_that_was_not_answered_has_no_figures(output: str, log: str) -> None:
    with pytest.raises(h2load.LoadFailed):
        h2load.parsed(output, log, 3)


def test_whoever_has_no_h2load_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "brew install nghttp2" in h2load.missing("darwin")
    assert "apt-get install nghttp2-client" in h2load.missing("linux")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert h2load.missing("linux") == ""


def test_a_child_that_ends_meanwhile_does_not_end_the_measurement() -> None:
    command = ["sh", "-c", "sleep 60 & echo $!; wait; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            with Meter({"both": [parent.pid]}) as meter:
                os.kill(child, signal.SIGKILL)
                psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], 10)
            assert meter.cpu_s["both"] >= 0
            assert meter.rss_mb()["both"] > 0
        finally:
            parent.kill()


def test_a_niced_program_disturbs_as_much_as_any_other() -> None:
    """It takes half of a machine of two cores from whoever is measured."""
    burning = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    with subprocess.Popen(["nice", "-n", "10", *burning], stdout=subprocess.PIPE) as foreign:
        assert foreign.stdout is not None
        foreign.stdout.readline()
        try:
            with Meter({}) as meter:
                process = psutil.Process(foreign.pid)
                used = process.cpu_times().user
                while process.cpu_times().user < used + 0.5:
                    time.sleep(0.01)
        finally:
            foreign.kill()
    assert meter.disturbance.foreign * meter.seconds * usable_cores() > 0.3
