"""Rounds of attacks on one system, and what is looked at between them."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.crowd import Crowd
from tests.chaos.rig import Options, Rig, rss_bytes
from tests.fuzz.attacks import Arena, Attack
from tests.fuzz.balance import balance
from tests.fuzz.complaints import complaints
from tests.fuzz.started import front_end, gateway
from tests.fuzz.trial import Finding, Tally, explore, replay
from tests.fuzz.vitals import MIB, Growth, Vitals, grown
from tests.processes import ROOT, Process
from tests.redis_server import RedisServer

WORKERS: Final = 2
DURING_S: Final = 30.0
"""Within this a well-behaved caller is answered during attacks."""

START_S: Final = 120.0
PAUSE_S: Final = 0.2
DECODER: Final = "decoder"
BOMBS_FROM_S: Final = 300.0
"""A run that is as long has time for each bomb in the decoder alone; that takes a minute."""

SHARE_S: Final = 3.0
"""How long one attack lasts in one round, at most."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line says."""

    seconds: float
    seed: int
    attacks: Sequence[Attack]
    with_decoder: bool = True
    broken: str = ""
    replay: str = ""
    between_s: float = 2.0
    """Within this a well-behaved caller is answered between attacks."""


@dataclass(slots=True)
class Result:
    """What came of a run."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    growths: list[Growth] = field(default_factory=list)
    general: list[Finding] = field(default_factory=list)
    """Findings that are of no single example."""

    rounds: int = 0
    took_s: float = 0.0
    decoder_peak_mib: int = 0
    good_calls: int = 0
    slowest_good_s: float = 0.0
    totals: dict[str, int] = field(default_factory=dict)

    def findings(self) -> list[Finding]:
        """Return all findings."""
        return [*self.general, *(f for tally in self.tallies.values() for f in tally.findings)]


class Run:
    """One run on a system of its own."""

    def __init__(self, rig: Rig, plan: Plan, say: Say) -> None:
        self._rig = rig
        self._plan = plan
        self._say = say
        self.result = Result()
        self._processes: dict[str, Process] = {}
        self._arena: Arena
        self._crowd: Crowd
        self._read: dict[str, int] = {}
        """How many characters of each log were looked at."""

    async def run(self) -> None:
        """Start the system, attack it until the time is over, and look whether it is as before."""
        began = time.monotonic()
        await self._start()
        ends_at = time.monotonic() + self._plan.seconds
        if self._plan.replay:
            await self._replay()
        while time.monotonic() < ends_at and not self._is_over():
            await self._round(ends_at)
            self.result.rounds += 1
            self._say_rss()
        if not self._is_down():
            await self._end()
        self.result.took_s = time.monotonic() - began

    async def _start(self) -> None:
        rig = self._rig
        self._processes["front-end"] = front_end(rig)
        for number in range(1, WORKERS + 1):
            self._processes[f"worker {number}"] = rig.start(
                [
                    *("-m", "tests.fuzz.worker", rig.redis.url, str(rig.journal)),
                    *("--break", self._plan.broken),
                ],
                {},
            )
        for process in list(self._processes.values())[1:]:
            # Of a machine that others keep busy.
            await asyncio.to_thread(process.wait_for_line, "worker ready", START_S)
        await rig.until_ready(WORKERS)
        self._crowd = rig.crowd(honest={"QUEUE_FULL"})
        self._processes["gateway"], web_address = await asyncio.to_thread(gateway, rig, START_S)
        self._arena = await asyncio.to_thread(Arena.at, rig.address, web_address)
        self.result.growths = [Growth(name) for name in self._processes]

    async def _round(self, ends_at: float) -> None:
        for attack in self._plan.attacks:
            if time.monotonic() >= ends_at or self._is_over():
                return
            tally = self._tally(attack.name)
            self._say(f"round {self.result.rounds + 1}: {attack.name}")
            until = min(ends_at, time.monotonic() + self._slice_s())
            async with self._good_company(attack.name):
                await asyncio.to_thread(self._attack, attack, tally, until)
            await self._look(attack.name)
        if self._plan.with_decoder and time.monotonic() < ends_at:
            await self._decode(min(self._slice_s() * 2, ends_at - time.monotonic()))

    def _say_rss(self) -> None:
        """Say how much memory each process holds: what grows does so in every round."""
        held = [
            f"{name} {rss_bytes(process.pid) / MIB:.1f}"
            for name, process in self._processes.items()
            if process.exit_code is None
        ]
        self._say(f"round {self.result.rounds}: RSS, MiB: {', '.join(held)}")

    def _slice_s(self) -> float:
        """Return how long one attack lasts, so that there are at least four rounds."""
        return min(SHARE_S, self._plan.seconds / 4 / (len(self._plan.attacks) + 2))

    def _seed(self) -> int:
        return self._plan.seed + 1_000_000 * self.result.rounds

    def _attack(self, attack: Attack, tally: Tally, ends_at: float) -> None:
        self._arena.tally = tally
        explore(
            tally,
            attack.examples(self._arena),
            lambda example: attack.check(self._arena, example),
            seed=self._seed(),
            ends_at=ends_at,
        )

    async def _replay(self) -> None:
        attack = self._plan.attacks[0]
        tally = self._arena.tally = self._tally(attack.name)
        await asyncio.to_thread(
            replay,
            tally,
            attack.examples(self._arena),
            lambda example: attack.check(self._arena, example),
            blob=self._plan.replay.encode(),
        )
        await self._look(attack.name)

    def _tally(self, name: str) -> Tally:
        return self.result.tallies.setdefault(name, Tally(name))

    async def _decode(self, seconds: float) -> None:
        """Let the decoder run in a process of its own; with all bombs once, in the first round."""
        tally = self._tally(DECODER)
        bombs = [] if self.result.rounds or self._plan.seconds < BOMBS_FROM_S else ["--bombs"]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.fuzz.decoder", *bombs),
            *("--seconds", f"{seconds:.1f}", "--seed", str(self._seed())),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
        if not said:
            what = f"the decoder ended its process with {process.returncode}"
            tally.findings.append(Finding(DECODER, what))
            return
        report = json.loads(said)
        tally.examples += report["examples"]
        tally.answers.update(report["answers"])
        tally.slowest_s = max(tally.slowest_s, report["slowest_s"])
        tally.findings += [Finding(DECODER, *each) for each in report["findings"]]
        self.result.decoder_peak_mib = max(self.result.decoder_peak_mib, report["peak_mib"])

    @asynccontextmanager
    async def _good_company(self, during: str) -> AsyncIterator[None]:
        """Let a well-behaved caller call all the while."""

        async def call_again() -> None:
            while True:
                await self._good_call(DURING_S, f"during {during}")
                await asyncio.sleep(PAUSE_S)

        caller = asyncio.create_task(call_again())
        try:
            yield
        finally:
            caller.cancel()
            with suppress(asyncio.CancelledError):
                await caller

    async def _good_call(self, within_s: float, when: str) -> None:
        call = await self._crowd.predict(timeout_s=within_s)
        self.result.good_calls += 1
        if call.is_answered:
            self.result.slowest_good_s = max(self.result.slowest_good_s, call.took_s)
        elif call.refusal not in self._crowd.honest:
            what = call.refusal or "a wrong answer"
            self._find(when, f"a good caller got {what} after {call.took_s:.1f} s")

    async def _look(self, after: str) -> None:
        """Look between attacks: everybody is there and answers, and nobody complains."""
        for name, process in self._processes.items():
            fresh = process.log[self._read.get(name, 0) :]
            self._read[name] = self._read.get(name, 0) + len(fresh)
            for what in complaints(name, process, fresh):
                self._find(after, what)
        if self._is_down():
            return
        await self._good_call(self._plan.between_s, f"after {after}")
        # The first round is for warming up.
        if self.result.rounds:
            await self._measure()

    async def _measure(self) -> None:
        for growth in self.result.growths:
            process = self._processes[growth.name]
            has_tasks = growth.name == "front-end"
            growth.seen.append(await asyncio.to_thread(Vitals.of, process, has_tasks=has_tasks))

    async def _end(self) -> None:
        """Wait until all is quiet, and compare what Redis counted."""
        with self._rig.redis.client() as client:
            found = await balance(client, self._rig.model)
        self.result.totals = dict(found.totals)
        for fault in found.faults:
            self._find("books", fault)
        await self._look("the end")
        for fault in grown(self.result.growths):
            self._find("growth", fault)

    def _find(self, after: str, what: str) -> None:
        self.result.general.append(Finding(after, what))

    def _is_over(self) -> bool:
        """Say whether to go on is of no use: a process died, or what was broken was found."""
        return self._is_down() or bool(self._plan.broken and self.result.findings())

    def _is_down(self) -> bool:
        return any(process.exit_code is not None for process in self._processes.values())


async def fuzz(plan: Plan, folder: Path, say: Say) -> Result:
    """Run a plan on a new system."""
    async with Rig(RedisServer(folder), folder, Options()) as rig:
        run = Run(rig, plan, say)
        try:
            await run.run()
        except Exception as error:  # noqa: BLE001 - a run that breaks is a finding
            what = f"{type(error).__name__}: {error}\n{rig.logs()}"
            run.result.general.append(Finding("the run", what))
    return run.result
