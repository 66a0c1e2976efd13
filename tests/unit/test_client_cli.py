"""What the commands print, and how they exit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from client.cli.app import app
from client.cli.exits import ExitCode, explained, printable, worst
from client.errors import InvalidImage, NotFound
from tests.fake_front_end import FakeFrontEnd


@pytest.fixture(scope="module")
def server() -> Iterator[FakeFrontEnd]:
    with FakeFrontEnd() as server:
        yield server


@pytest.fixture
def run(server: FakeFrontEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command in a folder with an image of each kind."""
    for word in ("cat", "dog", "bad", "crash", "break"):
        (tmp_path / f"{word}.jpg").write_bytes(word.encode())
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: bytes = b"") -> Result:
        environment = {"DESPACHO_SERVER": server.target}
        return CliRunner().invoke(app, arguments, input=stdin, env=environment)

    return run


def lines(result: Result) -> dict[str, Any]:
    """The JSON lines by image."""
    return {line["image"]: line for line in map(json.loads, result.stdout.splitlines())}


def test_one_image_for_a_person(run: Any) -> None:
    result = run("predict", "cat.jpg")
    assert result.exit_code == 0
    header, best, other = result.stdout.splitlines()
    assert header == ("cat.jpg  default 7, 1500 ms (queue 2 ms, decode 3 ms, inference 4 ms)")
    assert best.split() == ["75.0%", "█" * 15, "cat"]
    assert other.split() == ["25.0%", "█" * 5, "other"]
    assert result.stderr == ""


def test_a_command_may_take_for_ever_but_not_an_unknown_time(run: Any) -> None:
    assert run("predict", "--timeout", "inf", "cat.jpg").exit_code == 0
    result = run("predict", "--timeout", "nan", "cat.jpg")
    assert result.exit_code == 2
    assert "nan is not a number of seconds" in result.stderr


def test_one_image_for_a_program(run: Any) -> None:
    result = run("predict", "--json", "--scores", "-k", "1", "-m", "m", "cat.jpg")
    assert result.exit_code == 0
    line = lines(result)["cat.jpg"]
    assert line["labels"] == [{"label": "cat", "class_id": 3, "score": 0.75}]
    assert line["scores"] == [0, 0.25, 0, 0.75]
    assert (line["model"], line["model_version"], line["worker"]) == ("m", "7", "worker-1")
    assert line["timing"]["queue_s"] == 0.002
    assert "error" not in line


def test_priority_reaches_the_server(run: Any, server: FakeFrontEnd) -> None:
    run("predict", "--priority", "low", "cat.jpg")
    assert server.requests[-1].priority == 3


def test_standard_input(run: Any) -> None:
    result = run("predict", "--json", "-", stdin=b"cow")
    assert lines(result)["-"]["labels"][0]["label"] == "cow"


def test_a_server_that_takes_larger_images_is_sent_them(
    run: Any, server: FakeFrontEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = b"cow ".ljust(20 * 1024 * 1024)
    Path("cow.jpg").write_bytes(large)
    result = run("predict", "cow.jpg")
    assert (result.exit_code, result.stderr) == (
        ExitCode.BAD_INPUT,
        "cow.jpg: the image has more than 16,777,216 bytes\n",
    )
    option = ("--max-image-bytes", str(len(large)))
    for arguments in (["cow.jpg"], ["-"], ["cow.jpg", "-"]):
        server.requests.clear()
        assert run("predict", *option, *arguments, stdin=large).exit_code == 0
        assert [len(request.image) for request in server.requests] == [len(large)] * len(arguments)
    monkeypatch.setenv("DESPACHO_MAX_IMAGE_BYTES", str(len(large)))
    assert run("predict", "cow.jpg").exit_code == 0
    assert run("predict", "--max-image-bytes", "3", "cat.jpg").exit_code == 0
    assert run("predict", "--max-image-bytes", "2", "cat.jpg").exit_code == ExitCode.BAD_INPUT


def test_many_images_and_each_its_own_fate(run: Any) -> None:
    result = run("predict", "--json", "cat.jpg", "bad.jpg", "no.jpg", "*.gif", "-", stdin=b"cow")
    found = lines(result)
    assert found["cat.jpg"]["labels"][0]["label"] == "cat"
    assert found["-"]["labels"][0]["label"] == "cow"
    reasons = {name: line["error"]["reason"] for name, line in found.items() if "error" in line}
    assert reasons == {
        "bad.jpg": "IMAGE_UNDECODABLE",
        "no.jpg": "IMAGE_UNREADABLE",
        "*.gif": "IMAGE_UNREADABLE",
    }
    assert result.exit_code == ExitCode.BAD_INPUT


def test_errors_for_a_person_go_to_standard_error(run: Any) -> None:
    result = run("predict", "cat.jpg", "bad.jpg")
    assert result.stderr == "bad.jpg: not an image\n"
    assert "bad.jpg" not in result.stdout


def test_a_server_error_wins_over_bad_input(run: Any) -> None:
    result = run("predict", "bad.jpg", "crash.jpg", "no.jpg")
    assert result.exit_code == ExitCode.SERVER_ERROR
    assert result.stderr.count("\n") == 3


def test_a_broken_stream_leaves_a_line_for_every_image(run: Any) -> None:
    result = run("predict", "--json", "break.jpg", "cat.jpg", "dog.jpg", "no.jpg")
    assert lines(result).keys() == {"break.jpg", "cat.jpg", "dog.jpg", "no.jpg"}
    assert result.exit_code == ExitCode.SERVER_ERROR
    assert "shutting down: try again in 1 s" in result.stderr


def test_one_bad_image_alone(run: Any) -> None:
    result = run("predict", "bad.jpg")
    assert (result.exit_code, result.stderr) == (3, "bad.jpg: not an image\n")


def test_an_unknown_model_is_explained(run: Any) -> None:
    result = run("predict", "-m", "nope", "cat.jpg")
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "`despacho models` lists what is served" in result.stderr


def test_what_the_server_advises_is_said() -> None:
    error = InvalidImage("not an image", advice="Check\x07 the file.")
    assert explained(error, "server") == "not an image. Check\\x07 the file."
    assert explained(NotFound("no such model", advice="Ask."), "server").endswith("is served")


def test_wrong_usage(run: Any) -> None:
    assert run("predict").exit_code == 2
    assert run("predict", "-", "-").exit_code == 2
    assert run("predict", "--top-k", "0", "cat.jpg").exit_code == 2


def test_help_documents_the_exit_codes(run: Any) -> None:
    assert "130  interrupted" in run("predict", "-h").stdout
    assert "the input is at fault" in run("--help").stdout


def test_models_for_a_person(run: Any) -> None:
    result = run("models")
    assert result.stdout.splitlines()[1].split() == [
        *("default", "7", "ready", "2", "5", "0.5", "s", "4"),
    ]


def test_models_are_not_cut_off_where_nothing_is_as_narrow(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = run("models").stdout, run("models", "default").stdout
    monkeypatch.setenv("COLUMNS", "20")
    assert (run("models").stdout, run("models", "default").stdout) == wide


def test_models_for_a_program(run: Any) -> None:
    (listed,) = map(json.loads, run("models", "--json").stdout.splitlines())
    assert (listed["name"], listed["state"], listed["estimated_wait_s"]) == (
        "default",
        "ready",
        0.5,
    )


def test_one_model(run: Any) -> None:
    assert "224 x 200 pixels" in run("models", "default").stdout
    one = json.loads(run("models", "default", "--json").stdout)
    assert one["labels"] == ["a", "other", "b", "c"]
    missing = run("models", "nope", "--json")
    assert missing.exit_code == ExitCode.BAD_INPUT
    assert json.loads(missing.stdout)["error"]["reason"] == "MODEL_NOT_FOUND"


def test_health_exits_with_0_only_if_serving(run: Any) -> None:
    result = run("health")
    assert (result.stdout, result.exit_code) == ("SERVING\n", 0)
    result = run("health", "readiness", "--json")
    assert json.loads(result.stdout) == {"service": "readiness", "status": "NOT_SERVING"}
    assert result.exit_code == ExitCode.SERVER_ERROR
    assert run("health", "nothing").exit_code == ExitCode.BAD_INPUT


def test_no_server_is_explained(run: Any, tmp_path: Path) -> None:
    result = run("health", "--server", f"unix:{tmp_path}/nobody")
    assert result.exit_code == ExitCode.SERVER_ERROR
    assert result.stderr == (
        f"Error: no server at unix:{tmp_path}/nobody:"
        " start one (`make up` in a checkout) or name it with --server\n"
    )


def test_a_terminal_is_not_told_what_to_do_by_a_label() -> None:
    assert printable("\x1b[31mcat\udcff é\n") == "\\x1b[31mcat\\udcff é\\n"


def test_a_server_error_is_worse_than_bad_input() -> None:
    assert worst(ExitCode.SERVER_ERROR, ExitCode.BAD_INPUT) is ExitCode.SERVER_ERROR
    assert worst(ExitCode.OK, ExitCode.BAD_INPUT) is ExitCode.BAD_INPUT
