"""The file of API keys, and the command that makes one."""

import asyncio
import os
import subprocess
import sys
import timeit
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server.api_keys import ApiKeys, BadKeysFile, digest, new_key, parsed
from server.keys import as_toml
from tests.credentials import Keys

LIMIT_S = 10.0

ENTRY = f'[[key]]\nname = "camera-1"\nsha256 = "{"0" * 64}"\nscopes = ["predict"]\n'


def test_keys_are_long_random_and_recognisable() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("despacho_") and len(key) == 9 + 43 for key in keys)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not toml at all",
        "[key]\n",
        ENTRY + ENTRY,
        ENTRY + ENTRY.replace("camera-1", "camera-2"),
        ENTRY.replace("predict", "everything"),
        ENTRY.replace("camera-1", "anonymous"),
        ENTRY.replace("camera-1", "CN=camera-1"),
        ENTRY.replace("camera-1", "a b"),
        ENTRY.replace("0" * 64, "0" * 63),
        ENTRY.replace("0" * 64, "F" * 64),
        ENTRY + "requests_per_s = -1\n",
        ENTRY + "requests_per_s = inf\n",
        ENTRY + "max_in_fligth = 1\n",
        ENTRY.replace("scopes", "# scopes"),
    ],
)
def test_a_file_that_is_not_right_is_refused(text: str) -> None:
    with pytest.raises(BadKeysFile):
        parsed(text)


def test_a_complaint_does_not_quote_a_key_that_was_put_in_by_mistake() -> None:
    key = new_key()
    with pytest.raises(BadKeysFile) as caught:
        parsed(ENTRY.replace("0" * 64, key))
    assert key not in str(caught.value)
    assert "sha256" in str(caught.value)


def test_a_key_is_found_by_itself_and_by_nothing_else(tmp_path: Path) -> None:
    made = Keys(tmp_path / "keys.toml")
    first, second = made.add("first", "predict"), made.add("second", "admin")
    keys = ApiKeys(made.path)
    for name, key in (("first", first), ("second", second)):
        found = keys.find(key)
        assert found is not None
        assert found.name == name
    for wrong in ("", first[:-1], first + "x", digest(first), "despacho_"):
        assert keys.find(wrong) is None


async def test_the_file_is_looked_at_again_and_what_was_used_stays_used(tmp_path: Path) -> None:
    made = Keys(tmp_path / "keys.toml")
    first = made.add("first", "predict", max_in_flight=2)
    keys = ApiKeys(made.path)
    found = keys.find(first)
    assert found is not None
    quota = keys.quota(found)
    quota.enter()

    second = made.add("first", "predict", max_in_flight=1)
    assert keys.find(second) is None  # not so soon
    with capture_logs() as logs:
        await keys.look()
        found = keys.find(second)
        assert keys.find(first) is None
    assert found is not None
    assert keys.quota(found) is quota
    assert quota.limits.max_in_flight == 1
    assert [line["event"] for line in logs] == ["new API keys in use"]


@pytest.mark.parametrize("text", ["", "nonsense", None])
async def test_a_bad_new_file_leaves_the_old_keys_and_is_told_once(
    tmp_path: Path, text: str | None
) -> None:
    made = Keys(tmp_path / "keys.toml")
    key = made.add("first", "predict")
    keys = ApiKeys(made.path)
    if text is None:
        made.path.unlink()
    else:
        made.path.write_text(text)
    with capture_logs() as logs:
        for _ in range(3):
            await keys.look()
            assert keys.find(key) is not None
    assert [line["event"] for line in logs] == ["new API keys not used, the old ones stay"]


async def test_calls_do_not_wait_while_a_new_file_is_read(tmp_path: Path) -> None:
    made = Keys(tmp_path / "keys.toml")
    key = made.add("first", "predict")
    keys = ApiKeys(made.path)
    # Whoever reads it waits until all of it is written.
    made.path.unlink()
    os.mkfifo(made.path)
    async with asyncio.timeout(LIMIT_S):
        looking = asyncio.create_task(keys.look())
        with await asyncio.to_thread(made.path.open, "w") as pipe:
            assert keys.find(key) is not None
            assert not looking.done()
            pipe.write(ENTRY)
        await looking
    assert keys.find(key) is None


def test_a_call_does_not_pay_for_every_key_in_the_file(tmp_path: Path) -> None:
    def seconds(count: int) -> float:
        path = tmp_path / f"{count}.toml"
        entries = (
            ENTRY.replace("camera-1", f"k{number}").replace("0" * 64, digest(str(number)))
            for number in range(count)
        )
        path.write_text("".join(entries))
        keys = ApiKeys(path)
        last = str(count - 1)
        return min(timeit.repeat(lambda: keys.find(last), number=20, repeat=20))

    # To look at each of them took 200 times as long.
    assert seconds(4000) < 20 * seconds(2)


def test_a_bad_file_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadKeysFile, match="cannot be read"):
        ApiKeys(tmp_path / "missing")


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "server.keys", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_command_makes_a_key_and_the_entry_for_it(tmp_path: Path) -> None:
    options = ("--scopes", "predict,admin", "--requests-per-s", "2.5", "--max-in-flight", "3")
    made = run("new", "camera-1", *options)
    assert made.returncode == 0
    [key] = [word for word in made.stderr.split() if word.startswith("despacho_")]
    assert key not in made.stdout
    path = tmp_path / "keys.toml"
    path.write_text(made.stdout)
    found = ApiKeys(path).find(key)
    assert found is not None
    assert found.scopes == {"predict", "admin"}
    assert (found.requests_per_s, found.max_in_flight) == (2.5, 3)
    assert parsed(as_toml(found)) == [found]


@pytest.mark.parametrize(
    "arguments",
    [
        ("new",),
        ("new", "a b"),
        ("new", "x", "--scopes", "everything"),
        ("new", "x", "--max-in-flight", "-1"),
        ("new", "x", "--requests-per-s", "nan"),
    ],
)
def test_the_command_explains_what_is_wrong(arguments: tuple[str, ...]) -> None:
    made = run(*arguments)
    assert made.returncode == 2
    assert made.stdout == ""
    assert "Traceback" not in made.stderr


def start(**settings: str) -> str:
    """Start a server that should refuse; return what it says."""
    ended = subprocess.run(
        [sys.executable, "-m", "server"],
        env={**os.environ, "REDIS_URL": "redis://127.0.0.1:1/0", **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("server: ")]
    return line


def test_a_server_with_bad_files_does_not_start_and_says_which(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("nonsense")
    address = {"SERVER_ADDRESS": "127.0.0.1:0"}
    assert str(path) in start(SERVER_API_KEYS_FILE=str(path), **address)
    files = {"SERVER_TLS_CERT_FILE": str(path), "SERVER_TLS_KEY_FILE": str(path)}
    assert str(path) in start(**files, **address)


def test_a_server_that_anybody_could_call_does_not_start() -> None:
    assert "SERVER_ALLOW_ANONYMOUS" in start(SERVER_ADDRESS="0.0.0.0:0")
