"""Write, or check, the Python stubs in `protos/gen`.

    python protos/generate.py           write them
    python protos/generate.py --check   exit 1 if they are stale

Google's own `.proto` files come from the package googleapis-common-protos. They
are copied to `build/proto-include` first, which is also where buf finds them,
because the package stores one of them under another name than the one that
other files import.
"""

import argparse
import filecmp
import importlib.resources
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import google.rpc
import grpc_tools

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GENERATED = PROTOS / "gen"
INCLUDE = ROOT / "build" / "proto-include"

GOOGLE_FILES = {
    "google/rpc/status.proto": "rpc/status.proto",
    # The package stores this one under another name than its own stubs import it by.
    "google/longrunning/operations.proto": "longrunning/operations_proto.proto",
    # What that one imports.
    **{
        f"google/api/{name}.proto": f"api/{name}.proto"
        for name in ("annotations", "client", "field_behavior", "http", "launch_stage")
    },
}
"""Import name of a file → where the package keeps it, below `google/`."""


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    arguments = parser.parse_args()

    copy_google_files()
    if not arguments.check:
        shutil.rmtree(GENERATED, ignore_errors=True)
        generate(GENERATED)
        return 0
    with tempfile.TemporaryDirectory() as fresh:
        generate(Path(fresh))
        stale = differences(Path(fresh), GENERATED)
    for name in stale:
        print(f"stale: protos/gen/{name} (run `make proto`)", file=sys.stderr)
    return 1 if stale else 0


def copy_google_files() -> None:
    """Lay Google's `.proto` files out under their import names."""
    package = Path(next(iter(google.rpc.__path__))).parent
    for name, source in GOOGLE_FILES.items():
        target = INCLUDE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / source, target)


def generate(target: Path) -> None:
    """Write the stubs of all our contracts below `target`."""
    target.mkdir(parents=True, exist_ok=True)
    scripts = Path(sysconfig.get_path("scripts"))
    well_known = importlib.resources.files(grpc_tools) / "_proto"
    subprocess.run(  # noqa: S603 - our own files, through the pinned compiler
        [
            sys.executable,
            *("-m", "grpc_tools.protoc"),
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            *(f"-I{folder}" for folder in (PROTOS, INCLUDE, well_known)),
            *(f"--{kind}_out={target}" for kind in ("python", "grpc_python")),
            *(f"--{kind}_out=quiet:{target}" for kind in ("mypy", "mypy_grpc")),
            *(str(path) for path in sorted(PROTOS.rglob("*.proto"))),
        ],
        check=True,
    )


def differences(fresh: Path, committed: Path) -> list[str]:
    """Names, below the folders, of files that differ or exist only in one."""
    names = {
        str(path.relative_to(folder))
        for folder in (fresh, committed)
        for path in folder.rglob("*_pb2*.py*")
        if path.suffix in {".py", ".pyi"}
    }
    return sorted(
        name
        for name in names
        if not (fresh / name).is_file()
        or not (committed / name).is_file()
        or not filecmp.cmp(fresh / name, committed / name, shallow=False)
    )


if __name__ == "__main__":
    sys.exit(main())
