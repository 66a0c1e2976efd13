"""Refuse a change of the contracts that breaks callers or stored jobs.

Compares with the newest release, else with `origin/main`, else with the commit
before the last; says so and succeeds when there is none of these, as in the first
commit, in a shallow clone, or without git. Needs `build/proto-include`, which
`generate.py` makes.
"""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the command line; return the exit code."""
    base = base_commit()
    if base is None:
        print("breaking changes: not checked, there is no commit to compare with")
        return 0
    print(f"breaking changes: comparing with {base}")
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder)
        if not export(base, before):
            print(f"breaking changes: not checked, {base} has no contracts")
            return 0
        # Google's files, which are not in git; buf cannot read ours without.
        include = Path("build", "proto-include")
        shutil.copytree(ROOT / include, before / include)
        buf = Path(sysconfig.get_path("scripts"), "buf")
        command = [str(buf), "breaking", "--against", str(before)]
        return subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603 - our own tool


def base_commit() -> str | None:
    """Name what the contracts are compared with; None: nothing."""
    if git("rev-parse", "--is-inside-work-tree") is None:
        return None
    release = git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*")
    head = git("rev-parse", "HEAD")
    for candidate in (release, "origin/main", "HEAD~1"):
        if candidate is None:
            continue
        commit = git("rev-parse", "--verify", "--quiet", f"{candidate}^{{commit}}")
        # A branch that is this very commit can only show what is not committed.
        if commit is not None and (candidate != "origin/main" or commit != head):
            return candidate
    return None


def export(commit: str, folder: Path) -> bool:
    """Lay the contracts of a commit out in `folder`; False: it has none."""
    names = git("ls-tree", "-r", "--name-only", commit, "buf.yaml", "protos")
    contracts = [name for name in (names or "").splitlines() if name.endswith((".proto", ".yaml"))]
    for name in contracts:
        content = git("show", f"{commit}:{name}")
        if content is None:
            return False
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
    return bool(contracts)


def git(*arguments: str) -> str | None:
    """Return what git says; None: it failed, or there is no git."""
    try:
        return subprocess.run(  # noqa: S603 - no input from outside
            ["git", *arguments],  # noqa: S607 - the user's git
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    sys.exit(main())
