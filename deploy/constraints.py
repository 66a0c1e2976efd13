"""Write constraints.txt: every package, at the newest version that fits the others.

Resolves the requirement files as if there were no constraints yet; what
requirements.txt pins stays as it is. Installs nothing.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "constraints.txt"
HEADER = """\
# Every package, direct or not, at the version the tests ran with.
# Refresh with: make constraints
"""


def main() -> int:
    """Write the file; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for path in (*ROOT.glob("requirements*.txt"), *ROOT.glob("*/requirements.txt")):
            target = copy / path.relative_to(ROOT)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
        (copy / NAME).touch()
        pins = resolved(copy / "requirements-dev.txt")
    (ROOT / NAME).write_text(HEADER + "".join(f"{pin}\n" for pin in pins))
    print(f"{NAME}: {len(pins)} packages; run the tests before you commit it")
    return 0


def resolved(requirements: Path) -> list[str]:
    """Return `name==version` of all that pip would install into an empty environment."""
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "install"),
        *("--dry-run", "--ignore-installed", "--quiet", "--report", "-"),
        *("-r", str(requirements)),
    ]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    packages = [package["metadata"] for package in json.loads(output)["install"]]
    return sorted((f"{one['name']}=={one['version']}" for one in packages), key=str.lower)


if __name__ == "__main__":
    sys.exit(main())
