"""Watching the system with the client, and what `despacho top` shows."""

import asyncio
import io
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from client import AsyncClient, Cancelled, Client, DeadlineExceeded, Stats
from client.cli.app import app
from client.cli.top import view
from client.stats_wire import stats
from prediction.v1 import admin_pb2 as pb
from prediction.v1 import admin_pb2_grpc
from tests.fake_front_end import Refusal
from tests.terminal import on_terminal

TIMEOUT_S = 10


def duration(milliseconds: int) -> Duration:
    return Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def seen(window_s: int = 10) -> pb.WatchStatsResponse:
    return pb.WatchStatsResponse(
        time=Timestamp(seconds=1_767_323_045),
        window=Duration(seconds=window_s),
        servers=2,
        failures=[pb.FailureCount(reason="CREDENTIALS_MISSING", count=4)],
        models=[
            pb.ModelStats(
                model="flowers",
                queues=[
                    pb.QueueStats(name="high", oldest_age=duration(0)),
                    pb.QueueStats(name="normal", waiting=7, claimed=3, oldest_age=duration(1250)),
                ],
                queued_bytes=3 * 1024 * 1024,
                images_per_second=12.5,
                latency=pb.LatencyStats(
                    images=125, p50=duration(20), p90=duration(40), p99=duration(2500)
                ),
                failures=[pb.FailureCount(reason="QUEUE_FULL", count=9)],
                workers=[
                    pb.WorkerStats(
                        worker="w-1",
                        model_version="7",
                        ready=True,
                        in_hand=3,
                        images_per_second=12.5,
                        mean_batch_size=4.5,
                        busy=0.75,
                    )
                ],
            ),
            pb.ModelStats(model="idle"),
        ],
    )


class Watched(admin_pb2_grpc.AdminServiceServicer):
    """Shows what was seen over one second more each time."""

    def __init__(self) -> None:
        self.requests: list[pb.WatchStatsRequest] = []
        self.goes_away = False
        """Whether it shows one look and is away from then on."""

        self.looks: float = math.inf
        """How many there are before the server ends the call."""

    def WatchStats(  # noqa: N802 - as in the proto
        self, request: pb.WatchStatsRequest, context: Any
    ) -> Iterator[pb.WatchStatsResponse]:
        self.requests.append(request)
        if self.goes_away:
            if len(self.requests) == 1:
                yield seen(0)
            Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING", "gone for lunch").abort(context)
        window_s = 0
        while context.is_active() and window_s < self.looks:
            yield seen(window_s)
            window_s += 1


@pytest.fixture
def watched() -> Iterator[tuple[Watched, str]]:
    server = grpc.server(ThreadPoolExecutor(4))
    servicer = Watched()  # type: ignore[abstract] # nothing else is called
    admin_pb2_grpc.add_AdminServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None).wait()


def check(shown: Stats) -> None:
    assert shown.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert shown.servers == 2
    assert shown.failures == {"CREDENTIALS_MISSING": 4}
    flowers, idle = shown.models
    assert flowers.queues[1].oldest_age_s == 1.25
    assert flowers.latency.p99_s == 2.5
    assert flowers.failures == {"QUEUE_FULL": 9}
    (worker,) = flowers.workers
    assert (worker.name, worker.mean_batch_size, worker.busy) == ("w-1", 4.5, 0.75)
    assert (idle.latency.images, idle.latency.p50_s) == (0, None)


def test_the_system_is_watched(watched: tuple[Watched, str]) -> None:
    servicer, target = watched
    with Client(target) as client:
        for shown in client.admin.watch_stats("flowers", period_s=2.5, timeout_s=TIMEOUT_S):
            check(shown)
            break
    (request,) = servicer.requests
    assert request == pb.WatchStatsRequest(model="flowers", period=duration(2500))


async def test_the_system_is_watched_by_asyncio(watched: tuple[Watched, str]) -> None:
    _, target = watched
    async with AsyncClient(target) as client:
        shown = client.admin.watch_stats(timeout_s=TIMEOUT_S)
        check(await anext(shown))
        await shown.aclose()


async def test_closing_the_client_ends_a_watch_and_not_the_task(
    watched: tuple[Watched, str],
) -> None:
    client = AsyncClient(watched[1])
    shown = client.admin.watch_stats()
    check(await anext(shown))

    async def watch() -> None:
        async for each in shown:
            check(each)

    task = asyncio.create_task(watch())
    await client.close()
    with pytest.raises(Cancelled):
        await task


def test_a_watch_ends_with_its_time(watched: tuple[Watched, str]) -> None:
    _, target = watched
    with Client(target) as client, pytest.raises(DeadlineExceeded):
        for _ in client.admin.watch_stats(timeout_s=0.2):
            pass


def test_top_shows_it_once(watched: tuple[Watched, str]) -> None:
    result = CliRunner().invoke(app, ["top", "--once", "--json", "-s", watched[1]])
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    shown = json.loads(line)
    assert shown["window_s"] == 2
    assert shown["time"] == "2026-01-02T03:04:05+00:00"
    assert shown["models"][0]["queues"][1]["waiting"] == 7


@pytest.mark.parametrize("options", [["--once"], ["--json"]])
def test_top_says_that_a_server_that_was_there_is_away(
    watched: tuple[Watched, str], options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.cli.top.AGAIN_S", 0.1)
    servicer, target = watched
    servicer.goes_away = True
    result = CliRunner().invoke(app, ["top", *options, "--timeout", "3", "-s", target])
    assert result.exit_code == 1
    if "--once" in options:
        assert "Deadline" not in result.stderr
        assert len(servicer.requests) == 1
    else:
        assert result.stderr.count("gone for lunch; it is asked again and again.") == 1
        assert len(servicer.requests) > 1


def test_top_cuts_nothing_off_in_a_file(
    watched: tuple[Watched, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    result = CliRunner().invoke(app, ["top", "--once", "-s", watched[1]])
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["w-1", "7", "ready", "3", "12.5", "4.5", "75%"] in rows


def test_top_is_seen_on_a_dumb_terminal(watched: tuple[Watched, str]) -> None:
    servicer, target = watched
    servicer.looks = 2
    with on_terminal(("-m", "client.cli", "top", "-s", target), "dumb") as (terminal, process):
        assert process.wait(TIMEOUT_S) == 0
        assert terminal.join().count("2 servers") == 2


def test_top_says_why_there_is_nothing() -> None:
    result = CliRunner().invoke(app, ["top", "--timeout", "5", "-s", "127.0.0.1:1"])
    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.output


def drawn(message: pb.WatchStatsResponse) -> str:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(view(stats(message), "127.0.0.1:50051"))
    return console.export_text()


def test_all_that_matters_is_in_the_picture() -> None:
    text = drawn(seen())
    for expected in (
        "2 servers",
        "12.5 images/s  p50 20 ms  p90 40 ms  p99 2.5 s",
        "failed  QUEUE_FULL 9",
        "3.0 MiB held",
        "failed otherwise  CREDENTIALS_MISSING 4",
        "no worker is alive",
    ):
        assert expected in text
    rows = [line.split() for line in text.splitlines()]
    assert ["normal", "7", "3", "1.2", "s"] in rows
    assert ["w-1", "7", "ready", "3", "12.5", "4.5", "75%"] in rows


def test_no_model_is_told() -> None:
    assert "No model was ever served here" in drawn(pb.WatchStatsResponse(servers=1))
