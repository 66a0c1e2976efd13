"""The fuzz suite is worth something only if it can fail.

Its parts are tested in `test_what_is_a_finding.py`. That it finds processes that die, or decoders
that hang, takes minutes: `python -m tests.fuzz --attack images --break dies`.
"""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st

from tests.fuzz import trial
from tests.fuzz.trial import Tally, explore
from tests.processes import ROOT


def fuzz(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seed", "7", "--between", "30", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )


@pytest.mark.timeout(180)
def test_a_sound_system_minds_nothing() -> None:
    ended = fuzz("--seconds", "5")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " 0 findings" in ended.stdout


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("raises", "INFERENCE_FAILED"),
        ("leaks", "rss_bytes grew"),
    ],
)
def test_a_broken_decoder_is_found(broken: str, said: str) -> None:
    # It ends when that is found; in 4 s a busy machine makes only seven examples.
    ended = fuzz("--seconds", "12", "--attack", "images", "--break", broken)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert said in ended.stdout


def test_the_simplest_example_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    # As many rounds on any machine: it is as late as examples were tried.
    monkeypatch.setattr(trial, "time", SimpleNamespace(monotonic=lambda: len(tried)))
    explore(Tally("numbers"), st.integers(0, 10**9), tried.append, seed=7, ends_at=2 * trial.FEW)
    assert tried.count(0) == 1
