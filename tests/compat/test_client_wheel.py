"""The client as others have it: a wheel in an environment where nothing of ours is."""

import hashlib
import json
import subprocess
import sys
import venv
import zipfile
from collections.abc import AsyncIterator
from email.parser import Parser
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from packaging.requirements import Requirement

from tests.processes import ROOT
from tests.redis_server import RedisServer
from tests.stack import Stack, image_of
from tests.worker_process import MODEL

# The first run fetches packages; they are kept for the next.
pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]

ENVIRONMENTS: Final = ROOT / ".venv-clients" / "wheel"
DESCRIPTION: Final = ROOT / "deploy" / "despacho-client" / "pyproject.toml"
OLDEST: Final = ROOT / "deploy" / "despacho-client" / "oldest.txt"

OURS: Final = ("client", "dispatch", "prediction", "despacho", "inference", "server", "worker")
HEAVY: Final = ("tensorflow", "keras", "numpy", "redis", "PIL", "pydantic")

COLOUR: Final = (255, 128, 0)
SCORES: Final = [round(part / 255, 4) for part in COLOUR]

LIBRARY: Final = """
import asyncio, json, sys
from pathlib import Path
from despacho_client import AsyncClient, Client, InvalidImage

address, model, path = sys.argv[1], sys.argv[2], Path(sys.argv[3])

def scores(result):
    return [round(score, 4) for score in result.scores]

async def over_asyncio():
    async with AsyncClient(address) as despacho:
        return scores(await despacho.predict(path, model=model, include_scores=True))

with Client(address) as despacho:
    name = despacho.submit(path, model=model, include_scores=True).name
    try:
        despacho.predict(b"not an image", model=model)
    except InvalidImage as error:
        refused = error.reason
    print(json.dumps({
        "call": scores(despacho.predict(path, model=model, include_scores=True)),
        "stream": [
            scores(outcome.unwrap())
            for outcome in despacho.predict_stream(
                enumerate([path, path]), model=model, include_scores=True
            )
        ],
        "operation": scores(despacho.wait(name, timeout_s=30).unwrap()),
        "asyncio": asyncio.run(over_asyncio()),
        "refused": refused,
        "served": [one.name for one in despacho.models()],
        "state": despacho.health(model).name,
    }))
"""

BESIDE: Final = """
import sys
sys.path.append(sys.argv[1])
for name in sys.argv[2:]:
    __import__(name)
from despacho_client.stubs.prediction.v1 import prediction_pb2 as theirs
from prediction.v1 import prediction_pb2 as own
request = own.PredictRequest(model="colours", top_k=3)
assert theirs.PredictRequest.FromString(request.SerializeToString()).model == "colours"
"""

TYPES: Final = """
from despacho_client import Client
from despacho_client.stubs.prediction.v1 import prediction_pb2

with Client("127.0.0.1:1") as client:
    reveal_type(client.predict(b"").labels[0].score)
reveal_type(prediction_pb2.PredictRequest().top_k)
"""


class Environment:
    """A virtual environment with the wheel and what it needs, and no more."""

    def __init__(self, name: str) -> None:
        # Other requirements are another environment, made from nothing.
        required = hashlib.sha256(DESCRIPTION.read_bytes() + OLDEST.read_bytes()).hexdigest()
        self.folder = ENVIRONMENTS / f"{name}-{sys.implementation.cache_tag}-{required[:8]}"
        self.python = self.folder / "bin" / "python"

    def install(self, wheel: Path, *options: str) -> None:
        """Install the wheel; what it needs only the first time."""
        complete = self.folder / "complete"
        if not complete.exists():
            venv.create(self.folder, clear=True, symlinks=True)
            self._pip("install", *options, str(wheel))
            complete.touch()
        else:
            # Another build of the same version has to be forced.
            self._pip("install", "--force-reinstall", "--no-deps", str(wheel))

    def _pip(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        run(*command, "--python", str(self.python), *arguments)

    def run_python(self, source: str, *arguments: object) -> str:
        """Run a program with this environment only; every warning is an error."""
        return run(str(self.python), "-I", "-W", "error", "-c", source, *arguments)


def run(*command: object) -> str:
    """Run a program; return what it prints."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("dist")
    return Path(run(sys.executable, ROOT / "deploy" / "wheel.py", "--output", output).strip())


@pytest.fixture(scope="module")
def newest(wheel: Path) -> Environment:
    """With the newest packages there were when the environment was made."""
    environment = Environment("newest")
    environment.install(wheel)
    return environment


@pytest.fixture(scope="module")
def oldest(wheel: Path) -> Environment:
    """With the oldest packages that the wheel admits."""
    environment = Environment("oldest")
    environment.install(wheel, "-r", str(OLDEST))
    return environment


@pytest.fixture(scope="module", params=["newest", "oldest"])
def environment(request: pytest.FixtureRequest) -> Environment:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Environment)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    redis = RedisServer(tmp_path_factory.mktemp("redis"))
    redis.start()
    stack = Stack(redis, tmp_path_factory.mktemp("stack"))
    try:
        stack.start_server()
        stack.start_worker()
        await stack.until_ready()
        yield stack
    finally:
        await stack.close()
        redis.stop()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "orange.png"
    path.write_bytes(image_of(COLOUR))
    return path


def test_the_wheel_takes_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"despacho_client", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    assert "despacho_client/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_nothing_of_the_services_is_installed(environment: Environment) -> None:
    source = (
        "import sys; from importlib.util import find_spec;"
        "print([name for name in sys.argv[1:] if find_spec(name)])"
    )
    assert environment.run_python(source, *OURS, *HEAVY).strip() == "[]"


def test_the_oldest_packages_are_the_floors(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    floors = {
        f"{needed.name}=={one.version}"
        for needed in map(Requirement, metadata.get_all("Requires-Dist", []))
        for one in needed.specifier
        if one.operator == ">="
    }
    lines = (line for line in OLDEST.read_text().splitlines() if not line.startswith("#"))
    assert set(lines) == floors


def test_the_library_predicts(environment: Environment, stack: Stack, photo: Path) -> None:
    said = json.loads(environment.run_python(LIBRARY, stack.address, MODEL, photo))
    assert said == {
        "call": SCORES,
        "stream": [SCORES, SCORES],
        "operation": SCORES,
        "asyncio": SCORES,
        "refused": "IMAGE_FORMAT_UNSUPPORTED",
        "served": [MODEL],
        "state": "SERVING",
    }


def test_the_command_predicts(environment: Environment, stack: Stack, photo: Path) -> None:
    command = environment.folder / "bin" / "despacho"
    said = json.loads(run(command, "predict", "--json", "-s", stack.address, "-m", MODEL, photo))
    assert said["image"] == str(photo)
    assert said["labels"][0]["label"] == "red"


@pytest.mark.parametrize(
    "order",
    [
        ("despacho_client.sync_client", "prediction.v1.prediction_pb2"),
        ("prediction.v1.prediction_pb2", "despacho_client.sync_client"),
    ],
    ids=["client-first", "own-first"],
)
def test_ones_own_stubs_may_be_in_the_same_process(
    newest: Environment, order: tuple[str, str]
) -> None:
    newest.run_python(BESIDE, ROOT / "protos" / "gen", *order)


def test_type_checkers_see_the_types(newest: Environment, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(TYPES)
    said = run(
        *(sys.executable, "-m", "mypy", "--strict", "--config-file", ""),
        *("--python-executable", newest.python, "--cache-dir", ENVIRONMENTS / "mypy"),
        program,
    ).replace("builtins.", "")
    assert 'Revealed type is "float"' in said
    assert 'Revealed type is "int"' in said
