"""One worker process: which threads there are, and how they start and stop."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Final

import structlog

from despacho.job.v1.job_pb2 import ModelCard
from dispatch.errors import BrokerUnavailable
from dispatch.jobs import Claim
from dispatch.work_queue import WorkQueue
from supervision.memory import govern_memory
from supervision.process_name import process_name
from telemetry.absence import Absence
from worker import worker_metrics
from worker.batch_cost import BatchCost
from worker.batching import ReadyQueue
from worker.decoders import Decoders
from worker.engine import Engine, UInt8Array
from worker.in_hand import InHand
from worker.intake import Intake
from worker.job_fields import fields_of_all
from worker.keeper import Keeper
from worker.loop import Loop, most_in_hand
from worker.machine import usable_cores
from worker.operations_intake import OperationsIntake
from worker.politeness import Politeness
from worker.publisher import Publisher
from worker.settings import WorkerSettings
from worker.sieve import Sieve
from worker.work_done import WorkDone

log = structlog.get_logger()

CONNECT_PAUSE_S: Final = 0.5
LOOK_S: Final = 0.5
"""How often the main thread looks at the others."""

DECODE_THREADS: Final = 2

JOIN_S: Final = 5.0
"""How long threads may take to end once they were told to."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a worker serves."""

    card: ModelCard
    decode: Callable[[bytes], UInt8Array]
    load: Callable[[], Engine]
    """Loads the model; called after the worker has announced itself."""


def _nothing() -> None:
    """Tell nobody."""


class Worker:
    """The threads of one worker and what they share."""

    def __init__(self, settings: WorkerSettings, served: Served, *, name: str = "") -> None:
        """Do nothing yet; `run` does.

        Args:
            settings: the knobs.
            served: the model.
            name: unique among all workers that ever were; empty: a new one.
        """
        self._settings = settings
        self._served = served
        self._stop = threading.Event()
        self._has_crashed = False
        card = served.card
        self._queue = WorkQueue(settings.redis_url, card.name, name or process_name())
        self._in_hand = InHand(
            max_jobs=most_in_hand(card.max_batch_size), max_bytes=settings.max_claim_bytes
        )
        wanted = settings.decode_threads or min(DECODE_THREADS, usable_cores())
        # One would take turns with the model's own thread, which decodes at less cost.
        self._decoder_count = wanted if wanted > 1 else 0
        self._work_done = WorkDone()
        self._keeper = Keeper(self._queue, self._in_hand, self._work_done, card)
        self._publisher = Publisher(self._queue, self._in_hand)
        self._politeness = Politeness(card.max_batch_size)
        self._cost = BatchCost(card.max_batch_size)
        self._ready = ReadyQueue(
            max_wait_s=settings.max_batch_wait_ms / 1000,
            cost=self._cost,
            politeness=self._politeness,
            remaining_s=self._remaining_s,
            has_undecoded=lambda: not self._decoder_count and self._decoders.has_waiting(),
        )
        self._sieve = Sieve(self._queue, self._in_hand, self._publisher)
        self._decoders = Decoders(
            self._queue, self._sieve, self._ready, self._publisher, served.decode
        )
        self._operations_intake = OperationsIntake(self._queue, self._in_hand, self._decoders)
        self._intake = Intake(
            self._queue,
            self._in_hand,
            self._decoders,
            self._operations_intake,
            self._cost,
            max_deliveries=settings.max_deliveries,
            dead_letter_max_bytes=settings.dead_letter_max_bytes,
        )
        self._threads: dict[str, threading.Thread] = {}

    def _remaining_s(self, claim: Claim) -> float:
        return (claim.deadline_ms - self._queue.now_ms()) / 1000

    def stop(self) -> None:
        """Ask `run` to finish; safe in a signal handler."""
        self._stop.set()

    def run(self, *, on_ready: Callable[[], None] = _nothing) -> int:
        """Serve until stopped; return the exit code.

        Args:
            on_ready: called once, when jobs are taken and front-ends can know it; from a thread.
        """
        govern_memory(keeps_free=False)
        with worker_metrics.shown(self._served.card.name, self._in_hand):
            return self._run(on_ready)

    def _run(self, on_ready: Callable[[], None]) -> int:
        log.info("worker starting", worker=self._queue.worker, model=self._served.card.name)
        if not self._connect():
            return 0
        self._start("keeper", self._keeper.run)
        engine = self._load()
        if engine is None:
            self._leave()
            return self._exit_code()
        self._in_hand.allow(most_in_hand(self._cost.best_size))
        loop = Loop(
            queue=self._queue,
            in_hand=self._in_hand,
            sieve=self._sieve,
            ready=self._ready,
            cost=self._cost,
            politeness=self._politeness,
            publisher=self._publisher,
            work_done=self._work_done,
            engine=engine,
            card=self._served.card,
            decode_one=self._decoders.decode_one,
        )
        self._decoders.then(loop.run_ready)
        self._start("publisher", self._publisher.run)
        self._start("model", loop.run)
        for number in range(self._decoder_count):
            self._start(f"decoder-{number}", self._decoders.run)
        self._start("intake", self._intake.run)
        self._start("operations", self._operations_intake.run)

        def tell() -> None:
            log.info("worker ready", worker=self._queue.worker)
            on_ready()

        self._keeper.set_ready(tell)
        self._watch(loop)
        self._finish(loop)
        return self._exit_code()

    def _exit_code(self) -> int:
        return 1 if self._has_crashed else 0

    def _connect(self) -> bool:
        absence = Absence("start")
        while not self._stop.is_set():
            try:
                self._queue.open()
            except BrokerUnavailable as error:
                absence.noticed(error)
                self._stop.wait(CONNECT_PAUSE_S)
            else:
                absence.over()
                return True
        return False

    def _load(self) -> Engine | None:
        """Load the model; None if the worker is stopped meanwhile, as a download may be slow."""
        loaded: Future[Engine] = Future()

        def load() -> None:
            try:
                engine = self._served.load()
                self._cost.measure(engine.warm_up)
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                loaded.set_exception(error)
            else:
                loaded.set_result(engine)

        threading.Thread(target=load, name="load", daemon=True).start()
        while not self._stop.is_set():
            if wait([loaded], LOOK_S).done:
                return loaded.result()
        return None

    def _watch(self, loop: Loop) -> None:
        """Wait until stopped; end a worker whose model hangs, which its heartbeat hides."""
        while not self._stop.wait(LOOK_S):
            if loop.running_for_s() > LOOK_S or loop.is_late():
                loop.relieve()
            if loop.running_for_s() > self._settings.max_inference_s:
                held = fields_of_all(self._in_hand.snapshot())
                log.error("an inference hangs; stopping", seconds=loop.running_for_s(), **held)
                self._has_crashed = True
                return

    def _start(self, name: str, run: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                run()
            except BaseException:
                # A thread that ends by surprise would leave a worker that looks alive.
                log.exception("thread failed; stopping", thread=name)
                self._has_crashed = True
                self._stop.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        self._threads[name] = thread

    def _finish(self, loop: Loop) -> None:
        """Finish what is in hand within the grace; give back the rest."""
        log.info("worker stopping", in_hand=len(self._in_hand))
        give_up_at = time.monotonic() + self._settings.stop_grace_s
        self._intake.stop()
        self._operations_intake.stop()
        # A claim may be under way: only then is what is in hand all there will be.
        self._join("intake", "operations")
        if not self._has_crashed:
            self._in_hand.wait_until_empty(give_up_at - time.monotonic())
        loop.relieve()  # what is answered need not be given back
        self._decoders.close()
        self._leave()
        self._ready.close()
        self._publisher.stop()
        self._join(*self._threads)
        self._queue.close()
        log.info("worker stopped")

    def _join(self, *names: str) -> None:
        give_up_at = time.monotonic() + JOIN_S
        for name in names:
            self._threads[name].join(max(0, give_up_at - time.monotonic()))

    def _leave(self) -> None:
        # Its next beat would put this worker's name back on the list.
        self._keeper.stop()
        self._join("keeper")
        rest = self._in_hand.snapshot()
        try:
            # After a crash the attempt must count: the job may have caused it.
            if rest and not self._has_crashed:
                self._queue.give_back(rest)
                self._in_hand.mark_given_back(rest)
                log.info("jobs given back", count=len(rest))
            self._queue.leave()
        except BrokerUnavailable as error:
            log.warning("broker unavailable; leases will end by themselves", error=str(error))
