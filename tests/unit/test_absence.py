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
