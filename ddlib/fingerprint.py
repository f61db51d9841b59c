"""The fingerprint of the code: which version of ddlib made a number.

A folder says what counts. All of ddlib shapes results, but two folders: ``disk`` moves bytes, ``study`` reads results
(but for ``study/run.py`` and ``study/pools.py``, which make them, and which :mod:`ddlib.study.provenance` adds).
"""

import ast
import hashlib
import importlib.metadata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
DISTRIBUTION = "ddlib-ptm"  # as pyproject.toml names what is installed
COMPUTES_NOTHING = ("disk", "study")  # folders


def code_hash(module: str | None = None) -> str:
    """16 hex digits for the source of the core, or of one ``module`` (``"ptms/training"``) and all that it imports."""
    return _code_hash(PACKAGE, module)


def installed_version() -> str | None:
    """The version of the installed package; None where ddlib runs from a checkout alone."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return None


def hash_of_files(package: Path, files: Iterator[Path]) -> str:
    """16 hex digits for the names and the text of files in a package."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(package).as_posix()}\n{path.read_text(encoding='utf-8')}".encode())
    return digest.hexdigest()[:16]


@cache  # the code that a process has imported is that of its start, whatever happens to the files later
def _code_hash(package: Path, module: str | None) -> str:
    return hash_of_files(package, _closure(package, module) if module else core_files(package))


def core_files(package: Path) -> set[Path]:
    """All files of the core."""
    return {path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in COMPUTES_NOTHING}


def _closure(package: Path, module: str) -> set[Path]:
    """The files of a module of the core and of those that it imports, directly or not."""
    core, found, open_ = core_files(package), set(), [package / f"{module}.py"]
    while open_:
        path = open_.pop()
        found.add(path)
        imported = {package.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in _imports(path)}
        open_ += sorted(imported & core - found)
    return found


def _imports(path: Path) -> Iterator[str]:
    """Modules of ddlib imported at the top of a file; what it imports for its type annotations alone does not count."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ddlib."):
            yield node.module
