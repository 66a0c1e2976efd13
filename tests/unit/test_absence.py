"""An outage is two lines in the log, however often it is run into."""

import structlog

from dispatch.errors import BrokerUnavailable
from telemetry.absence import Absence


def test_an_absence_is_told_when_it_begins_and_when_it_ends() -> None:
    now = 100.0
    absence = Absence("heartbeat", clock=lambda: now)
    with structlog.testing.capture_logs() as lines:
        absence.over()
        for _ in range(3):
            absence.noticed(BrokerUnavailable("away"), model="m")
            now += 0.2
        absence.over()
        absence.over()
        absence.noticed(BrokerUnavailable("away again"))
    assert lines == [
        {
            "event": "broker unavailable",
            "log_level": "warning",
            "suffers": "heartbeat",
            "error": "away",
            "cause": "",
            "model": "m",
        },
        {
            "event": "broker available again",
            "log_level": "info",
            "suffers": "heartbeat",
            "away_s": 0.6,
        },
        {
            "event": "broker unavailable",
            "log_level": "warning",
            "suffers": "heartbeat",
            "error": "away again",
            "cause": "",
        },
    ]


def test_threads_that_notice_its_end_at_once_tell_it_once() -> None:
    def clock() -> float:
        if is_ending:
            is_ending.pop()
            absence.over()  # as another thread would, in the middle of this one's
        return 100.0

    is_ending: list[bool] = []
    absence = Absence("replies", clock=clock)
    with structlog.testing.capture_logs() as lines:
        absence.noticed(BrokerUnavailable("away"))
        is_ending.append(True)
        absence.over()
    assert [line["event"] for line in lines] == ["broker unavailable", "broker available again"]


def test_threads_that_notice_its_beginning_at_once_tell_it_once() -> None:
    def clock() -> float:
        if is_beginning:
            is_beginning.pop()
            absence.noticed(BrokerUnavailable("away"))  # as another thread would
        return 100.0

    is_beginning = [True]
    absence = Absence("replies", clock=clock)
    with structlog.testing.capture_logs() as lines:
        absence.noticed(BrokerUnavailable("away"))
    assert [line["event"] for line in lines] == ["broker unavailable"]
