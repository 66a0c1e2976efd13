"""What the commands about operations and dead letters print, and how they exit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from client.cli.app import COMMANDS, app
from client.cli.exits import ExitCode
from client.cli.submit import CALLS_AT_A_TIME
from tests.fake_front_end import CRASH, DRAINING, FULL, NO_WORKER
from tests.fake_operations import FakeOperations

UUID = "5c2ba0cb-8d0c-4a4f-8c4a-3a2fd0b9a111"


@pytest.fixture
def server() -> Iterator[FakeOperations]:
    with FakeOperations() as server:
        yield server


@pytest.fixture
def run(server: FakeOperations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command in a folder with an image of each kind."""
    for word in ("cat", "dog", "bad", "slow"):
        (tmp_path / f"{word}.jpg").write_bytes(word.encode())
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str | bytes = "") -> Result:
        environment = {"DESPACHO_SERVER": server.target, "COLUMNS": "200", "TZ": "UTC"}
        return CliRunner().invoke(app, arguments, input=stdin, env=environment)

    return run


def json_lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def submitted(run: Any, *paths: str) -> list[str]:
    names: list[str] = run("submit", "-q", *paths).stdout.split()
    return names


def test_images_are_submitted_in_their_order(run: Any) -> None:
    result = run("submit", "cat.jpg", "dog.jpg")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["cat.jpg", "dog.jpg"]
    assert all("  models/default/operations/" in line for line in result.stdout.splitlines())


def test_options_of_submit_reach_the_server(run: Any, server: FakeOperations) -> None:
    run("submit", "-m", "m", "-k", "2", "--scores", "--synced", "--request-id", UUID, "cat.jpg")
    (request,) = server.submitted
    assert (request.model, request.top_k, request.include_scores) == ("m", 2, True)
    assert (request.durability, request.request_id) == (2, UUID)


def test_a_program_learns_all_of_an_operation(run: Any) -> None:
    cat, missing = json_lines(run("submit", "--json", "cat.jpg", "no.jpg"))
    assert (cat["image"], cat["model"], cat["state"]) == ("cat.jpg", "default", "queued")
    assert (cat["name"][:26], cat["estimated_position"]) == ("models/default/operations/", 4)
    assert cat["created_at"] == "2026-01-02T03:04:05+00:00"
    assert (cat["ended_at"], cat["result"], cat["error"]) == (None, None, None)
    assert missing["error"]["reason"] == "IMAGE_UNREADABLE"


def test_what_cannot_be_submitted_does_not_stop_the_others(run: Any) -> None:
    result = run("submit", "no.jpg", "cat.jpg")
    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.stdout.startswith("cat.jpg  ")
    assert result.stderr == "no.jpg: No such file or directory\n"


def test_a_server_that_fails_is_not_asked_for_every_image(
    run: Any, server: FakeOperations, tmp_path: Path
) -> None:
    for number in range(100):
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / "many" / f"{number:03}.jpg").write_bytes(b"cat")
    server.refusals = [CRASH] * 100
    result = run("submit", "--json", "many")
    assert len(json_lines(result)) == 100
    assert result.exit_code == ExitCode.SERVER_ERROR
    assert server.attempt_count <= 2 * CALLS_AT_A_TIME
    assert "of 100 not submitted" in result.stderr


def test_a_full_queue_is_explained(run: Any, server: FakeOperations) -> None:
    server.refusals = [FULL]
    result = run("submit", "--timeout", "2", "cat.jpg")
    assert result.exit_code == ExitCode.SERVER_ERROR
    assert result.stderr == "cat.jpg: the queue is full: try again in 3 s\n"


def test_a_request_id_is_for_one_image(run: Any) -> None:
    assert run("submit", "--request-id", UUID, "cat.jpg", "dog.jpg").exit_code == 2
    assert run("submit", "--request-id", "mine", "cat.jpg").exit_code == 2
    assert run("submit", "--json", "--quiet", "cat.jpg").exit_code == 2


def test_what_submit_prints_is_what_wait_reads(run: Any) -> None:
    printed = run("submit", "cat.jpg", "dog.jpg").stdout
    result = run("wait", "-", stdin=printed + "\n")
    assert result.exit_code == 0
    shown = result.stdout.splitlines()
    assert shown[0].startswith("cat.jpg  default 7, 1500 ms")
    assert shown[1].split()[-1] == "cat"
    assert shown[3].startswith("dog.jpg")


def test_names_alone_will_do(run: Any) -> None:
    cat, bad = submitted(run, "cat.jpg", "bad.jpg")
    result = run("wait", "--json", cat, "-", stdin=f"{bad}\n")
    first, second = json_lines(result)
    assert (first["image"], first["operation"]) == (cat, cat)
    assert first["labels"][0]["label"] == "cat"
    assert "scores" not in first
    assert second["error"]["reason"] == "IMAGE_UNDECODABLE"
    assert result.exit_code == ExitCode.BAD_INPUT


def test_not_done_in_time_is_a_server_error(run: Any) -> None:
    slow, cat = submitted(run, "slow.jpg", "cat.jpg")
    result = run("wait", "--timeout", "0.1", slow, cat)
    assert result.exit_code == ExitCode.SERVER_ERROR
    assert f"{slow}: not done in time, queued" in result.stderr
    assert result.stdout.startswith(cat)  # the time is over, but this one is done
    (line,) = json_lines(run("wait", "--timeout", "0.1", "--json", slow))
    assert line["error"]["reason"] == "OPERATION_NOT_DONE"


def test_waiting_for_what_is_not_there(run: Any) -> None:
    result = run("wait", "models/m/operations/none", *submitted(run, "cat.jpg"))
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "`despacho operations` lists what is there" in result.stderr
    assert "cat" in result.stdout


def test_waiting_does_not_begin_where_no_server_is(run: Any, server: FakeOperations) -> None:
    server.refusals = [DRAINING] * 99
    result = run("wait", "--json", "a", "b")
    assert [line["error"]["reason"] for line in json_lines(result)] == ["DRAINING"] * 2
    assert result.exit_code == ExitCode.SERVER_ERROR
    assert server.waits_s == []


def test_operations_for_a_person(run: Any) -> None:
    assert run("operations").stdout == "Nothing was submitted, or it is forgotten.\n"
    cat, bad, slow = submitted(run, "cat.jpg", "bad.jpg", "slow.jpg")
    _, *rows = (line.split() for line in run("operations").stdout.splitlines())
    shown = {row[0]: row[1:4] for row in rows}
    assert shown[cat][:2] == ["done", "cat"]
    assert shown[bad][:2] == ["done", "IMAGE_UNDECODABLE"]
    assert shown[slow] == ["queued", "position", "4"]
    one = run("operations", cat).stdout
    assert "75.0%" in one
    assert cat in one


def test_a_name_is_never_cut_off(run: Any) -> None:
    (name,) = submitted(run, "-m", "m" * 300, "cat.jpg")
    assert name in run("operations").stdout


def test_operations_for_a_program(run: Any) -> None:
    names = submitted(run, "cat.jpg", "bad.jpg", "slow.jpg")
    submitted(run, "-m", "m", "cat.jpg")
    assert len(json_lines(run("operations", "--json"))) == 4
    (line,) = json_lines(run("operations", "--json", "--model", "m"))
    assert line["result"]["labels"][0]["label"] == "cat"
    (line,) = json_lines(run("operations", "--json", names[1]))
    assert line["error"]["reason"] == "IMAGE_UNDECODABLE"
    assert run("operations", "models/m/operations/none").exit_code == ExitCode.BAD_INPUT


def test_operations_are_cancelled_and_deleted(run: Any) -> None:
    (name,) = submitted(run, "slow.jpg")
    result = run("cancel", name)
    assert (result.stdout, result.stderr, result.exit_code) == ("", "", 0)
    result = run("wait", name)
    assert (result.stderr, result.exit_code) == (f"{name}: cancelled by its caller\n", 1)
    assert json_lines(run("delete", "--json", "-", stdin=name)) == [{"name": name}]
    result = run("delete", name)
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "no such operation" in result.stderr


def test_a_failing_server_is_asked_once(run: Any, server: FakeOperations) -> None:
    server.refusals = [CRASH] * 9
    assert run("cancel", "a", "b", "c").exit_code == ExitCode.SERVER_ERROR
    assert server.attempt_count == 1


def test_a_server_that_takes_larger_images_is_sent_them_and_sends_them_back(
    run: Any, server: FakeOperations, tmp_path: Path
) -> None:
    large = b"cat ".ljust(20 * 1024 * 1024)
    (tmp_path / "large.jpg").write_bytes(large)
    option = ("--max-image-bytes", str(len(large)))
    assert run("submit", "large.jpg").exit_code == ExitCode.BAD_INPUT
    assert run("submit", *option, "large.jpg").exit_code == 0
    assert run("submit", *option, "-", stdin=large).exit_code == 0
    assert [len(request.image) for request in server.submitted] == [len(large)] * 2
    show = ("dead-letters", "show", server.set_aside(large), "-o", "out.jpg")
    assert "larger than max" in run(*show).stderr
    assert run(*show, *option).exit_code == 0
    assert (tmp_path / "out.jpg").read_bytes() == large


def test_dead_letters_are_listed_and_shown(
    run: Any, server: FakeOperations, tmp_path: Path
) -> None:
    assert run("dead-letters", "list").stdout == "There are no dead letters.\n"
    name = server.set_aside(b"cat")
    assert name in run("dead-letters", "list").stdout
    (line,) = json_lines(run("dead-letters", "list", "--json"))
    assert (line["name"], line["reason"], line["size_bytes"]) == (name, "JOB_POISONED", 3)
    result = run("dead-letters", "show", name, "--output", "out.jpg")
    assert "JOB_POISONED" in result.stdout
    assert (tmp_path / "out.jpg").read_bytes() == b"cat"
    assert run("dead-letters", "show", name, "-o", "-").stdout == "cat"
    result = run("dead-letters", "show", "models/default/deadLetters/9-9", "-o", "other.jpg")
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "`despacho dead-letters list` lists what is there" in result.stderr
    assert not (tmp_path / "other.jpg").exists()
    assert run("dead-letters", "list", "-m", "nope").exit_code == ExitCode.BAD_INPUT


def test_a_replayed_letter_can_be_waited_for(run: Any, server: FakeOperations) -> None:
    name = server.set_aside(b"cat")
    printed = run("dead-letters", "replay", name).stdout
    assert run("wait", "-", stdin=printed).stdout.startswith(f"{name}  default 7")
    server.refusals = [NO_WORKER]
    result = run("dead-letters", "replay", name)
    assert (result.exit_code, server.letters) == (ExitCode.SERVER_ERROR, {})


def test_letters_are_purged(run: Any, server: FakeOperations) -> None:
    one, *_ = [server.set_aside(b"x") for _ in range(4)]
    assert run("dead-letters", "purge", one).stdout == "1 deleted\n"
    assert run("dead-letters", "purge").exit_code == 2
    assert run("dead-letters", "purge", "--all", one).exit_code == 2
    assert run("dead-letters", "purge", "--all", stdin="n\n").exit_code == 1
    assert len(server.letters) == 3
    result = run("dead-letters", "purge", "--all", "--yes", "--json")
    assert json_lines(result) == [{"purged_count": 3}]


def test_purging_all_asks_first(run: Any, server: FakeOperations) -> None:
    server.set_aside(b"x", "m")
    result = run("dead-letters", "purge", "--all", "-m", "m", stdin="y\n")
    assert "Delete all dead letters of m?" in result.stderr
    assert server.letters == {}


def test_a_model_is_forgotten(run: Any, server: FakeOperations) -> None:
    assert run("forget-model", "old").exit_code == 0
    assert "old" not in server.models
    result = run("forget-model", "busy")
    assert result.stderr == "Error: a worker of it lives\n"
    assert result.exit_code == ExitCode.BAD_INPUT


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(run: Any, name: str) -> None:
    context = click.Context(app)
    command = app.get_command(context, name)
    assert command is not None
    assert command.name == name
    assert run(name, "--help").exit_code == 0
    assert COMMANDS[name].summary in " ".join(run("--help").stdout.split())
