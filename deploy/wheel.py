"""Build the wheel `despacho-client` in `dist`, from `client/` and the public contracts.

In this repository the client is `client` and its stubs are `prediction.v1`: names
too general for anybody's site-packages. In the wheel they are `despacho_client` and
`despacho_client.stubs.prediction.v1`. The stubs are compiled anew, by an older
compiler than ours, so that they run with more versions of protobuf.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from protos import generate  # noqa: E402 - this file runs as a program

SOURCES: Final = ROOT / "deploy" / "despacho-client"
"""How the wheel is described."""

TOOLS: Final = ROOT / ".venv-clients" / "wheel"
"""Where compilers are kept, one folder per version."""

PACKAGE: Final = "despacho_client"

MOVED: Final = {
    "client": PACKAGE,
    "prediction": f"{PACKAGE}.stubs.prediction",
}
"""Top-level package in this repository → its name in the wheel."""

IMPORTABLE: Final = {
    *sys.stdlib_module_names,
    *("click", "google", "grpc", "grpc_health", "rich"),
    PACKAGE,
}
"""What the wheel may import: itself and its requirements."""


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder of the wheel")
    print(build(parser.parse_args().output))
    return 0


def build(output: Path) -> Path:
    """Build the wheel; return where it is."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        lay_out(project)
        check_imports(project)
        wheel = build_wheel(project)
        output.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(wheel, output))


def lay_out(project: Path) -> None:
    """Write an ordinary project: what `pip wheel` can build."""
    shutil.copy(SOURCES / "pyproject.toml", project)
    shutil.copy(ROOT / "LICENSE", project)
    (project / "README.md").write_text(readme((ROOT / "docs" / "client.md").read_text()))

    package = project / PACKAGE
    shutil.copytree(ROOT / "client", package, ignore=shutil.ignore_patterns("__pycache__", "*.txt"))
    (package / "py.typed").touch()
    compile_stubs(package / "stubs")
    for path in [*package.rglob("*.py"), *package.rglob("*.pyi")]:
        path.write_text(moved(path.read_text()))


def compile_stubs(target: Path) -> None:
    """Write the stubs of the public contracts, with their types, below `target`."""
    generate.copy_google_files()
    compiler = installed_compiler()
    contracts = sorted((ROOT / "protos" / "prediction").rglob("*.proto"))
    target.mkdir()
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"-I{path}" for path in (generate.PROTOS, generate.INCLUDE)),
            f"-I{compiler / 'grpc_tools' / '_proto'}",
            *(f"--{kind}_out={target}" for kind in ("python", "grpc_python")),
            *(str(path) for path in contracts),
        ],
        check=True,
        # Before site-packages, where our own compiler is.
        env={**os.environ, "PYTHONPATH": str(compiler)},
    )
    # Types say nothing about versions: those of the repository will do.
    for types in (generate.GENERATED / "prediction").rglob("*.pyi"):
        shutil.copy(types, target / types.relative_to(generate.GENERATED).parent)
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()


def installed_compiler() -> Path:
    """Return the folder of the compiler that protoc.txt names; fetch it the first time."""
    requirements = SOURCES / "protoc.txt"
    pin = requirements.read_text().splitlines()[-1]
    folder = TOOLS / f"{pin}-{sys.implementation.cache_tag}"
    if not folder.is_dir():
        TOOLS.mkdir(parents=True, exist_ok=True)
        # Complete or not there at all, whatever happens on the way.
        with tempfile.TemporaryDirectory(dir=TOOLS) as fresh:
            # Only the compiler; what it needs to start is in our own environment.
            pip("install", "--no-deps", "--target", f"{fresh}/new", "-r", str(requirements))
            Path(fresh, "new").replace(folder)
    return folder


def moved(source: str) -> str:
    """Return code, or text with code, with our packages under their names in the wheel."""
    for name, new in MOVED.items():
        source = re.sub(rf"\bfrom {name}(?=[. ])(?=[\w.]* import )", f"from {new}", source)
        # How generated code names the module of its classes.
        source = re.sub(rf"'{name}\.v1\.(?=\w+_pb2')", f"'{new}.v1.", source)
    return source


def readme(page: str) -> str:
    """Return docs/client.md as it reads outside of the repository."""
    # How to build it is of no use to those who have it.
    page = re.sub(r"## In your own project\n.*?(?=^## )", "", page, flags=re.DOTALL | re.MULTILINE)
    page = re.sub(r"\[([^\]]*)\]\((?![#]|https?:)[^)]*\)", r"\1", page)
    return moved(page.replace("# Client\n", "# despacho-client\n", 1))


def check_imports(project: Path) -> None:
    """Refuse a package that would import what its users do not have."""
    for path in sorted(project.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import():
                    names = [alias.name for alias in node.names]
                case ast.ImportFrom(level=0, module=str(module)):
                    names = [module]
                case _:
                    continue
            for name in names:
                if name.partition(".")[0] not in IMPORTABLE:
                    where = f"{path.relative_to(project)}:{node.lineno}"
                    raise SystemExit(f"{where}: the wheel has no module {name}")


def build_wheel(project: Path) -> Path:
    """Run the build back-end that is installed here; return the wheel."""
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(project), str(project))
    (wheel,) = project.glob("*.whl")
    return wheel


def pip(*arguments: str) -> None:
    """Run pip."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
