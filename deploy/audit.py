"""Look the pinned packages up in the index of known vulnerabilities.

    python deploy/audit.py

Exit code 1 if one is known. Without a way to the index, or to pip-audit, it says
that nothing was checked and exits with 0: a build must not need the network.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
PINS: Final = ROOT / "constraints.txt"
# Its own: pip-audit has a dozen dependencies that the project should not have.
HOME: Final = ROOT / ".venv-audit"
REQUIREMENT: Final = "pip-audit>=2.7,<3"
LIMIT_S: Final = 300


class NotChecked(Exception):
    """The index could not be asked."""


def main() -> int:
    """Ask, and print what is known; return the exit code."""
    try:
        report = asked(installed())
    except NotChecked as error:
        print(f"audit: not checked: {error}")
        return 0
    found = vulnerable(report)
    for line in found:
        print(f"audit: {line}")
    skipped = [each["name"] for each in report["dependencies"] if "skip_reason" in each]
    if skipped:
        print(f"audit: not checked: {', '.join(skipped)}")
    checked_count = len(report["dependencies"]) - len(skipped)
    print(f"audit: {checked_count} packages checked, {len(found)} with known vulnerabilities")
    return 1 if found else 0


def installed() -> Path:
    """Return pip-audit, which is installed when it is not there.

    Raises:
        NotChecked: it cannot be.
    """
    program = HOME / "bin" / "pip-audit"
    if not program.exists():
        venv.create(HOME, with_pip=True)
        pip = [str(HOME / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        done = run([*pip, "install", "--quiet", "--retries", "1", REQUIREMENT])
        if done.returncode:
            raise NotChecked(f"pip-audit cannot be installed: {last_line(done.stderr)}")
    return program


def asked(program: Path) -> dict[str, Any]:
    """Return the report of pip-audit.

    Raises:
        NotChecked: there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "report.json"
        done = run(
            [
                *(str(program), "--requirement", str(PINS), "--no-deps", "--disable-pip"),
                *("--format", "json", "--output", str(output), "--progress-spinner", "off"),
            ]
        )
        # The exit code is 1 for both: something was found, and nobody could be asked.
        try:
            report: dict[str, Any] = json.loads(output.read_text())
            report["dependencies"]
        except (OSError, ValueError, KeyError, TypeError):
            raise NotChecked(f"pip-audit failed: {last_line(done.stderr)}") from None
        # A mirror without advisories answers, too: it knows none of the packages.
        if all("skip_reason" in each for each in report["dependencies"]):
            raise NotChecked("the index knows none of the packages")
        return report


def vulnerable(report: dict[str, Any]) -> list[str]:
    """Return a line for each package that has known vulnerabilities."""
    lines = []
    for package in report["dependencies"]:
        ids = [each["id"] for each in package.get("vulns", ())]
        fixes = sorted({fix for each in package.get("vulns", ()) for fix in each["fix_versions"]})
        if ids:
            cure = f"fixed in {', '.join(fixes)}" if fixes else "no fix yet"
            lines.append(f"{package['name']} {package['version']}: {', '.join(ids)} ({cure})")
    return lines


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end.

    Raises:
        NotChecked: it does not come to one.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise NotChecked(f"no answer within {LIMIT_S} s") from None
    except OSError as error:
        raise NotChecked(str(error)) from None


def last_line(text: str) -> str:
    """Return what a program said last."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no reason given")


if __name__ == "__main__":
    sys.exit(main())
