"""In processes of their own: what is tested happens while TensorFlow is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.model

UNSET = ("TF_CPP_MIN_LOG_LEVEL", "KERAS_HOME", "KERAS_BACKEND", "no_proxy", "NO_PROXY")


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k not in UNSET}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )


def test_import_and_first_run_say_nothing_and_use_neither_threads_nor_backend_of_others() -> None:
    program = (
        "from worker.engines.runtime import keras, set_threads, tf; set_threads(1);"
        "print(float(tf.constant(1.0) + 1), keras.backend.backend(),"
        " tf.config.threading.get_intra_op_parallelism_threads(),"
        " tf.config.threading.get_inter_op_parallelism_threads())"
    )
    done = run(program, KERAS_BACKEND="jax")
    assert (done.stdout, done.stderr) == ("2.0 tensorflow 1 1\n", "")


def test_whoever_sets_the_log_level_sees_all() -> None:
    done = run("import worker.engines.runtime", TF_CPP_MIN_LOG_LEVEL="0")
    assert "oneDNN" in done.stderr


def test_other_lines_are_passed_on_and_errors_too() -> None:
    program = """
import os, sys
from worker.engines.quiet_import import quiet_import
try:
    with quiet_import():
        os.write(2, b"I0000 00:00:1795429518.798472    7596 port.cc:153] noise\\n")
        os.write(2, b'{"event": "heartbeat"}\\n')
        raise ImportError("no such library")
except ImportError as error:
    print(error)
os.write(2, b"after\\n")
"""
    done = run(program)
    assert done.stderr == '{"event": "heartbeat"}\nafter\n'
    assert done.stdout == "no such library\n"


def test_application_is_downloaded_to_the_cache_or_says_why_not(tmp_path: Path) -> None:
    program = f"""
import pathlib
from worker.model_directory import load_engine, open_model
from worker.model_spec import ModelError
cache = pathlib.Path({str(tmp_path)!r})
try:
    load_engine(open_model("keras-applications:MobileNetV2", cache), threads=0, cache_dir=cache)
except ModelError as error:
    print(error)
"""
    # Nobody listens there, so nothing is downloaded, wherever this test runs.
    done = run(program, https_proxy="http://127.0.0.1:1")
    assert "keras-applications:MobileNetV2: its weights cannot be loaded: URL fetch" in done.stdout
    assert (tmp_path / "keras" / "models").is_dir()
