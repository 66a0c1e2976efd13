"""What the fuzz suite takes for a finding, without a system to attack."""

import asyncio
from collections.abc import Collection
from contextlib import nullcontext

import pytest

from dispatch import keys
from tests.fuzz.attacks_gateway import PREDICT as WEB_PREDICT
from tests.fuzz.attacks_gateway import WebRequest, judge_web
from tests.fuzz.attacks_wire import PREDICT, Lie, refusals, status_of
from tests.fuzz.balance import balance
from tests.fuzz.complaints import complaints
from tests.fuzz.verdict import HEALTH_CHECK, OK, Answer, Wrong, judge
from tests.fuzz.vitals import ALLOWED_RSS_BYTES, Growth, Vitals, grown
from tests.processes import Process
from tests.redis_server import RedisServer
from tests.worker_process import MODEL

LEAK = "KeyError: 'redis://:password@10.0.0.1'"


def is_accepted(answer: Answer, also: Collection[str] = ()) -> bool:
    try:
        judge(answer, also=also, within_s=1)
    except Wrong:
        return False
    return True


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        (Answer(OK), True),
        (Answer(OK, took_s=2), False),
        (Answer("INVALID_ARGUMENT", "IMAGE_UNDECODABLE"), True),
        (Answer("INTERNAL", "IMAGE_UNDECODABLE"), False),
        (Answer("INTERNAL", "INFERENCE_FAILED"), False),
        (Answer("UNKNOWN", text=LEAK), False),
        (Answer("INTERNAL", text=LEAK), False),
        (Answer("UNAVAILABLE", "BROKER_UNAVAILABLE"), False),
        (Answer("DEADLINE_EXCEEDED", text="Deadline Exceeded"), False),
        (Answer("RESOURCE_EXHAUSTED", text="Received message larger than max"), True),
        (Answer("RESOURCE_EXHAUSTED", text=LEAK), False),
        (Answer("NOT_FOUND", text="nothing has this name", path=HEALTH_CHECK), True),
        (Answer("NOT_FOUND", text="nothing has this name", path=PREDICT), False),
        (Answer("NOT_FOUND", text="an item of a call"), False),
        (Answer("NOT_FOUND", "MODEL_NOT_FOUND", path=PREDICT), True),
        (Answer("UNIMPLEMENTED", text="Method not found!", path=PREDICT), False),
    ],
)
def test_answers_are_judged_by_code_reason_and_method(answer: Answer, *, is_right: bool) -> None:
    assert is_accepted(answer) is is_right


def test_what_a_caller_has_asked_for_is_accepted() -> None:
    assert is_accepted(Answer("CANCELLED"), also=["CANCELLED"])
    assert not is_accepted(Answer("CANCELLED"))


@pytest.mark.parametrize(
    ("answer", "lie", "is_right"),
    [
        (Answer("UNKNOWN", text=LEAK), Lie(), False),
        (Answer("INTERNAL", text=LEAK), Lie(flag=1), False),
        (Answer("INTERNAL", text="Error parsing 'te' metadata"), Lie(), True),
        (Answer("INTERNAL", text="Duplicate ':authority' header received"), Lie(), True),
        (Answer("INTERNAL", text="Duplicate 'host' header received"), Lie(), True),
        (Answer("INTERNAL", text="Decompression failed due to zlib error"), Lie(flag=1), True),
        (Answer("UNKNOWN", text="Error parsing 'te' metadata"), Lie(), False),
        (Answer("UNIMPLEMENTED", text="Method not found!"), Lie(path="/a/b/c"), True),
        (Answer("UNIMPLEMENTED", text="Method not found!"), Lie(), False),
        (Answer("DEADLINE_EXCEEDED"), Lie(headers=(("grpc-timeout", "0n"),)), True),
        (Answer("DEADLINE_EXCEEDED"), Lie(), False),
    ],
)
def test_lies_are_told_only_what_they_have_asked_for(
    answer: Answer, lie: Lie, *, is_right: bool
) -> None:
    assert is_accepted(answer, also=refusals(answer, lie)) is is_right


@pytest.mark.parametrize(
    ("answer", "framing", "is_right"),
    [
        (Answer("200"), "honest", True),
        (Answer("200", took_s=60), "honest", False),
        (Answer("400", "BODY_BROKEN"), "too long", True),
        (Answer("nothing"), "too long", True),
        (Answer("nothing"), "honest", False),
        (Answer("no problem"), "too long", False),
        (Answer("garbage"), "too long", False),
        (Answer("500", "INTERNAL"), "honest", False),
        (Answer("503", "GATEWAY_FULL"), "honest", True),
        (Answer("503", "FRONT_END_UNREACHABLE"), "honest", False),
    ],
)
def test_answers_of_the_gateway_are_judged_by_status_and_reason(
    answer: Answer, framing: str, *, is_right: bool
) -> None:
    request = WebRequest("POST", WEB_PREDICT, (), "image", framing, 100, "waits")
    with nullcontext() if is_right else pytest.raises(Wrong):
        judge_web(answer, request)


def test_a_status_is_read_off_the_wire() -> None:
    # google.rpc.Status: code 3, message "no".
    trailers = {"grpc-status": "3", "grpc-message": "n%6F", "grpc-status-details-bin": "CAMSAm5v"}
    assert status_of(trailers) == Answer("INVALID_ARGUMENT", "", "no")
    del trailers["grpc-status-details-bin"]
    assert status_of(trailers) == Answer("INVALID_ARGUMENT", "", "no")
    assert status_of({"grpc-status": "99"}) == Answer("99")


@pytest.mark.parametrize(
    ("counted", "more", "said"),
    [
        ({"accepted": 3, "completed": 2, "failed": 1}, "", ""),
        ({"accepted": 3, "completed": 2}, "", "accepted is not the sum"),
        ({"accepted": 3, "completed": 4}, "", "accepted is not the sum"),
        ({"accepted": 1, "poisoned": 1}, "", "1 jobs poisoned"),
        ({"accepted": 2, "orphaned": 2}, "", "2 jobs orphaned"),
        ({}, "bytes", "not back to zero"),
        ({}, "a key", "keys that stay for ever"),
    ],
)
def test_the_books_are_checked(
    redis_server: RedisServer, counted: dict[str, int], more: str, said: str
) -> None:
    with redis_server.client() as client:
        for name, count in counted.items():
            client.hset(keys.totals(MODEL), name, str(count))
        if more == "bytes":
            client.hset(keys.load(MODEL), more, "7")
        elif more:
            client.set(more, "for ever")
        faults = asyncio.run(balance(client, MODEL, settle_s=0)).faults
    assert [fault[: len(said)] for fault in faults] == ([said] if said else [])


def test_a_process_that_ended_or_complains_is_noticed() -> None:
    process = Process(["-c", "raise SystemExit(3)"], {})
    process.wait()
    assert complaints("worker", process, "all is well\n")[0].startswith("worker ended with 3")
    running = Process(["-c", "input()"], {})
    try:
        assert complaints("worker", running, "all is well\n") == []
        assert complaints("worker", running, "Traceback (most recent\n") == [
            "worker complains: Traceback (most recent"
        ]
    finally:
        running.kill()


def test_growth_is_noticed() -> None:
    def growth(last: Vitals) -> Growth:
        return Growth("worker", [Vitals(100, 5, 5, 5), Vitals(100, 5, 5, 5), last])

    assert grown([growth(Vitals(100 + ALLOWED_RSS_BYTES, 13, 13, 13))]) == []
    assert len(grown([growth(Vitals(101 + ALLOWED_RSS_BYTES, 14, 14, 14))])) == 4
