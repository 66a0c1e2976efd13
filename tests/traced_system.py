"""Real processes whose spans go to a collector of the test."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Process
from tests.redis_server import RedisServer
from tests.stack import Stack
from tests.trace_collector import Collector, Seen
from tests.worker_process import MODEL

CALL = "prediction.v1.PredictionService/Predict"
STREAM = "prediction.v1.PredictionService/PredictStream"
SUBMIT = "prediction.v1.PredictionService/SubmitPrediction"
IMAGE = f"predict {MODEL}"
WORK = ("queue wait", "decode", "inference")
MILLISECOND_NS = 1_000_000
LIMIT_S = 20
LONG_S = 3600


class System(Stack):
    """A front-end and a worker that send their spans to a collector."""

    def __init__(self, redis: RedisServer, folder: Path, collector: Collector) -> None:
        super().__init__(redis, folder)
        self.collector = collector
        self.server = self.start_server(log_format="json")
        self.worker = self.start_worker(log_format="json", log_level="DEBUG")


def trace_to(patch: pytest.MonkeyPatch, url: str, *, delay_ms: int = 20) -> None:
    """Let processes that start now send their spans there."""
    patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    patch.setenv("OTEL_BSP_SCHEDULE_DELAY", str(delay_ms))


def new_trace(*, is_sampled: bool = True) -> tuple[str, tuple[tuple[str, str]]]:
    """Return the id of a new trace, and the metadata of a call in it."""
    trace_id = os.urandom(16).hex()
    return trace_id, (("traceparent", f"00-{trace_id}-{'7a' * 8}-{is_sampled:02x}"),)


def by_name(spans: list[Seen]) -> dict[str, Seen]:
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def line_with(process: Process, event: str, request_id: str) -> dict[str, Any]:
    """Return the line of a log of JSON about a request."""
    text = process.wait_for_line(
        rf'(?m)^(?=.*"event": "{event}")(?=.*"request_id": "{request_id}").*$'
    ).group(0)
    found: dict[str, Any] = json.loads(text)
    return found
