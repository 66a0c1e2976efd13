"""Exceptions of signal handlers, such as Ctrl-C: raised at once, and nothing hangs by them.

`test_client_interrupts.py` runs these in a process of their own.
"""

import contextvars
import itertools
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import grpc
import pytest
from click.testing import CliRunner

from client import Cancelled, Client, DespachoError
from client.cli.app import app
from client.interrupts import Shelter
from tests.fake_front_end import LIMIT_S, Refusal
from tests.fake_operations import FakeOperations

ROOT = Path(__file__).parents[2]

SOON = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "full", retry_after_s=0.01)


class Late(Exception):
    """What the signal handler of these tests raises."""


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    def late(*_: object) -> NoReturn:
        raise Late

    # Not of SIGINT: pytest has a handler of its own for that.
    before = signal.signal(signal.SIGUSR1, late)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def server() -> Iterator[FakeOperations]:
    with FakeOperations() as server:
        yield server


def interrupt() -> None:
    """Have the main thread run the handler."""
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    signal.pthread_kill(main_thread, signal.SIGUSR1)


def interrupt_when(happened: threading.Event) -> None:
    """Interrupt the main thread once something has happened."""

    def watch() -> None:
        if happened.wait(LIMIT_S):
            interrupt()

    threading.Thread(target=watch).start()


def helpers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "despacho-client"]


def have_ended(threads: list[threading.Thread]) -> bool:
    for thread in threads:
        thread.join(LIMIT_S)
    return not any(thread.is_alive() for thread in threads)


def test_another_thread_does_it_as_the_main_one_would() -> None:
    greeting = contextvars.ContextVar("greeting", default="")
    greeting.set("hello")
    shelter = Shelter()
    thread, said = shelter.run(lambda: (threading.current_thread(), greeting.get()))
    assert (thread.name, said) == ("despacho-client", "hello")
    with pytest.raises(StopIteration):
        shelter.run(lambda: next(iter(())))


def test_other_threads_do_it_themselves() -> None:
    used: list[threading.Thread] = []
    thread = threading.Thread(target=lambda: used.append(Shelter().run(threading.current_thread)))
    thread.start()
    thread.join()
    assert used == [thread]


def test_an_interrupt_is_raised_at_once_and_ends_what_was_waited_for() -> None:
    before = helpers()
    shelter = Shelter()
    begun, cancelled, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert cancelled.wait(LIMIT_S)
        ended.set()

    interrupt_when(begun)
    with pytest.raises(Late):
        shelter.run(work, cancelled.set)
    assert ended.wait(LIMIT_S)
    assert have_ended([thread for thread in helpers() if thread not in before])


def test_a_handler_may_use_the_client_and_let_the_program_go_on(server: FakeOperations) -> None:
    client = Client(server.target)
    signal.signal(signal.SIGUSR1, lambda *_: client.close())
    interrupt_when(server.slow_arrived)
    with pytest.raises(Cancelled):
        client.predict(b"slow")


def test_one_thread_serves_a_client_and_ends_with_it(server: FakeOperations) -> None:
    before = helpers()
    client = Client(server.target)
    for _ in range(3):
        client.predict(b"cat")
        for outcome in client.predict_stream((i, b"cat") for i in itertools.count()):
            assert outcome.result
            break
    (helper,) = (thread for thread in helpers() if thread not in before)
    client.close()
    assert have_ended([helper])
    with suppress(DespachoError):
        client.predict(b"cat")
    assert helpers() == before


def test_the_thread_of_a_client_that_is_dropped_ends(server: FakeOperations) -> None:
    before = helpers()
    client = Client(server.target)
    client.predict(b"cat")
    (helper,) = (thread for thread in helpers() if thread not in before)
    del client
    assert have_ended([helper])


def test_a_waiting_thread_keeps_nothing_of_what_it_did() -> None:
    class Request:
        def send(self) -> None:
            raise ValueError

    shelter = Shelter()
    request = Request()
    gone = threading.Event()
    watch = weakref.ref(request, lambda _: gone.set())
    with pytest.raises(ValueError):  # noqa: PT011 - the one above
        shelter.run(request.send)
    del request
    assert watch() is None or gone.wait(LIMIT_S)


PROGRAMS = {
    "after a fork": """
        import os
        from client.interrupts import Shelter
        shelter = Shelter()
        assert shelter.run(os.getpid) == os.getpid()
        child = os.fork()
        answer = shelter.run(os.getpid)
        assert answer == os.getpid()
        if child:
            assert os.waitpid(child, 0)[1] == 0
    """,
    "when Python ends": """
        import atexit, os
        from client.interrupts import Shelter
        atexit.register(lambda: print(Shelter().run(os.getpid) == os.getpid()))
    """,
    "when Python has stopped all threads": """
        import os
        from client.interrupts import Shelter
        class Late:
            def __del__(self, shelter=Shelter(), pid=os.getpid):
                shelter.run(pid)
        late = Late()
    """,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_nothing_waits_for_a_thread_that_is_not_there(program: str) -> None:
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "if True:" + program],
        cwd=ROOT,
        check=True,
        timeout=LIMIT_S,
    )


@contextmanager
def watched() -> Iterator[list[str]]:
    """Note where this thread is inside gRPC, or takes the lock of a `Condition`.

    In both an interrupt may leave something locked.
    """
    entered: list[str] = []

    def watch(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        caller = frame.f_back.f_code if frame.f_back else code
        is_open = "/grpc/" in code.co_filename or code.co_qualname == "Condition.__enter__"
        if event == "call" and is_open:
            entered.append(f"{caller.co_qualname} calls {code.co_qualname}")

    sys.setprofile(watch)
    try:
        yield entered
    finally:
        sys.setprofile(None)


def refused_while_it_rests(client: Client, server: FakeOperations) -> None:
    server.refusals = [SOON]
    client.predict(b"cat")


def left(client: Client, _: FakeOperations) -> None:
    next(client.predict_stream((i, b"cat") for i in itertools.count()))


def refused_while_it_is_sent(client: Client, _: FakeOperations) -> None:
    client.predict_upload(b"bad" + bytes(100_000) for _ in range(100))


USES: dict[str, Callable[[Client, FakeOperations], object]] = {
    "call": lambda client, _: client.predict(b"cat"),
    "refused call": lambda client, _: client.predict(b"bad"),
    "rest": refused_while_it_rests,
    "upload": lambda client, _: client.predict_upload([b"cat"]),
    "refused upload": refused_while_it_is_sent,
    "stream": lambda client, _: list(client.predict_stream([(1, b"cat"), (2, b"bad")])),
    "left stream": left,
    "broken stream": lambda client, _: list(client.predict_stream([(1, b"break")])),
    "stats": lambda client, _: list(client.admin.watch_stats(timeout_s=0.2)),
    "close": lambda client, _: client.close(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_there_is_nothing_to_interrupt_in_the_main_thread(
    server: FakeOperations, use: Callable[[Client, FakeOperations], object]
) -> None:
    with Client(server.target) as client, watched() as entered:
        with suppress(DespachoError):
            use(client, server)
        client.close()
    # An error has its call, and where that is let go of, gRPC runs this.
    assert [each for each in entered if "__del__" not in each] == []


@pytest.mark.parametrize("name", ["call", "upload", "stream", "left stream"])
def test_the_main_thread_does_not_even_let_go_of_a_call(server: FakeOperations, name: str) -> None:
    """What a handler raises in a `__del__`, Python swallows."""
    with Client(server.target) as client, watched() as entered:
        USES[name](client, server)
    assert entered == []


def test_there_is_nothing_to_interrupt_while_images_are_submitted(
    server: FakeOperations, tmp_path: Path
) -> None:
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(b"cat")
    with watched() as entered:
        result = CliRunner().invoke(app, ["submit", "-q", "-s", server.target, str(tmp_path)])
    assert len(result.stdout.split()) == 20
    # The channel is made, and let go of, where nothing runs on it.
    waits = [each for each in entered if "Condition" in each and "__del__" not in each]
    assert waits == []


def endless_calls(client: Client) -> None:
    while True:
        client.predict(b"cat")


def endless_stream(client: Client) -> None:
    for outcome in client.predict_stream((i, b"cat") for i in itertools.count()):
        assert outcome.result


def endless_streams(client: Client) -> None:
    while True:
        outcomes = client.predict_stream((i, b"cat") for i in itertools.count())
        next(outcomes)
        # Python swallows what is raised while it closes one that nobody holds any more.
        outcomes.close()


@pytest.mark.parametrize("use", [endless_calls, endless_stream, endless_streams])
def test_a_client_can_be_used_and_closed_after_interrupts_at_any_time(
    server: FakeOperations, use: Callable[[Client], None]
) -> None:
    before = helpers()
    client = Client(server.target)
    for _ in range(30):
        threading.Timer(random.uniform(0.005, 0.03), interrupt).start()
        with pytest.raises(Late):
            use(client)
        assert client.predict(b"cat", timeout_s=LIMIT_S).labels[0].label == "cat"
    closing = threading.Thread(target=client.close, daemon=True)
    closing.start()
    closing.join(LIMIT_S)
    assert not closing.is_alive()
    assert have_ended([thread for thread in helpers() if thread not in before])


@pytest.mark.parametrize(
    "wait",
    [
        lambda client: client.predict(b"slow"),
        lambda client: client.predict_upload([b"slow"]),
        lambda client: next(client.predict_stream([("k", b"slow")])),
    ],
    ids=["call", "upload", "stream"],
)
def test_an_interrupted_call_is_cancelled(
    server: FakeOperations, wait: Callable[[Client], object]
) -> None:
    with Client(server.target) as client:
        interrupt_when(server.slow_arrived)
        began_at = time.monotonic()
        with pytest.raises(Late):
            wait(client)
        assert time.monotonic() - began_at < LIMIT_S / 2
        assert server.call_ended.wait(LIMIT_S)


def test_no_answer_is_taken_before_the_caller_wants_it(
    server: FakeOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendezvous: Any = sys.modules["grpc._channel"]._MultiThreadedRendezvous
    take = rendezvous._next
    taken_count = 0

    def counted(call: object) -> object:
        nonlocal taken_count
        taken_count += 1
        return take(call)

    monkeypatch.setattr(rendezvous, "_next", counted)
    with Client(server.target) as client:
        outcomes = client.predict_stream((i, b"cat") for i in range(10))
        for wanted_count in range(1, 6):
            next(outcomes)
            assert taken_count == wanted_count
        outcomes.close()
        assert taken_count == 5
