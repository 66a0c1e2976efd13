"""`make audit`: what is known of the pinned packages, if anybody can be asked."""

import json
import sys
from pathlib import Path

import pytest

from deploy import audit

REPORT = {
    "dependencies": [
        {"name": "good", "version": "1", "vulns": []},
        {"name": "bad", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]},
        {"name": "worse", "version": "4", "vulns": [{"id": "GHSA-2", "fix_versions": []}]},
        {"name": "skipped", "skip_reason": "not found on the index"},
    ],
    "fixes": [],
}


def program(folder: Path, *, writes: str | None) -> Path:
    """Return a program that behaves like pip-audit with this report."""
    path = folder / "pip-audit"
    lines = [f"#!{sys.executable}", "import pathlib, sys"]
    if writes is not None:
        place = "pathlib.Path(sys.argv[sys.argv.index('--output') + 1])"
        lines.append(f"{place}.write_text({writes!r})")
    lines.append("print('no way to the index', file=sys.stderr)")
    lines.append("sys.exit(1)")
    path.write_text("\n".join(lines))
    path.chmod(0o700)
    return path


def test_what_is_known_fails_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = program(tmp_path, writes=json.dumps(REPORT))
    monkeypatch.setattr(audit, "installed", lambda: made)
    assert audit.main() == 1
    assert capsys.readouterr().out.splitlines() == [
        "audit: bad 2: PYSEC-1 (fixed in 3)",
        "audit: worse 4: GHSA-2 (no fix yet)",
        "audit: not checked: skipped",
        "audit: 3 packages checked, 2 with known vulnerabilities",
    ]


def test_a_mirror_that_knows_nothing_of_vulnerabilities_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    skipped = {"dependencies": REPORT["dependencies"][-1:], "fixes": []}
    made = program(tmp_path, writes=json.dumps(skipped))
    monkeypatch.setattr(audit, "installed", lambda: made)
    assert audit.main() == 0
    assert "not checked: the index knows none" in capsys.readouterr().out


@pytest.mark.parametrize("writes", [None, "", "[]", "{}"])
def test_an_index_that_cannot_be_asked_does_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    writes: str | None,
) -> None:
    made = program(tmp_path, writes=writes)
    monkeypatch.setattr(audit, "installed", lambda: made)
    assert audit.main() == 0
    assert capsys.readouterr().out == (
        "audit: not checked: pip-audit failed: no way to the index\n"
    )
