"""The arrows between the parts, as docs/architecture.md draws them."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

MAY_IMPORT: dict[str, set[str]] = {
    "telemetry": set(),
    "supervision": set(),
    "dispatch": {"stubs"},
    "server": {"dispatch", "stubs", "supervision", "telemetry"},
    "worker": {"dispatch", "stubs", "supervision", "telemetry"},
    "client": {"stubs"},
    "gateway": {"client", "stubs", "supervision", "telemetry"},
    # Starts the others; reads their settings, errors and metrics to document them.
    "deploy": {"client", "dispatch", "gateway", "server", "stubs", "telemetry", "worker"},
}

ONLY_IN: dict[str, list[str]] = {
    "grpc": ["server", "client", "deploy/docker"],
    "redis": ["dispatch"],
    "tensorflow": ["worker/engines", "worker/bundled"],
    "keras": ["worker/engines", "worker/bundled"],
    "ai_edge_litert": ["worker/engines"],
    "openvino": ["worker/engines"],
    "flask": ["gateway"],
    "cheroot": ["gateway"],
    "prometheus_client": ["telemetry"],
    "opentelemetry": ["telemetry"],
}

STUBS = {"prediction", "despacho", "inference"}
FOREIGN_TO_CLIENT = {"despacho"}  # what lies in Redis is none of a client's business


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Return the top-level names that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return frozenset(found)


def files_of(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_what_the_arrows_allow(part: str) -> None:
    files = files_of(part)
    assert files
    allowed = MAY_IMPORT[part] | {part}
    for path in files:
        for name in imports_of(path):
            target = "stubs" if name in STUBS else name
            if target == "stubs" or target in MAY_IMPORT:
                assert target in allowed, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_known_only_where_it_belongs(library: str) -> None:
    homes = [ROOT / home for home in ONLY_IN[library]]
    for part in MAY_IMPORT:
        for path in files_of(part):
            if any(path.is_relative_to(home) for home in homes):
                continue
            assert library not in imports_of(path), path.relative_to(ROOT)


def test_a_client_knows_nothing_of_what_lies_in_redis() -> None:
    for path in files_of("client"):
        assert not FOREIGN_TO_CLIENT & imports_of(path), path.relative_to(ROOT)


def test_every_part_is_watched() -> None:
    parts = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert parts == set(MAY_IMPORT)
