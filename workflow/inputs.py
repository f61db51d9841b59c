"""What shapes a job beside its parameters: code, cells of its notebook, images in folders; and whether it has changed.

A job asks that before it starts, so that a night of runs with other code than the sweep began with ends at once. Like
the plan, this needs no torch.
"""

import ast
import hashlib
import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from workflow.markers import bytes_checksum
from workflow.plan import ROOT, Grid, GridError, Job, Pool, digest

COMPUTES = "run.run_arm"  # the last cell of a notebook that shapes a record calls this
COMPARISON = ROOT / "notebooks" / "03_compare.ipynb"


def changed(grid: Grid, work: Job | Pool) -> list[str]:
    """What is not as it was when the sweep began, in words; nothing if all is."""
    code, folders = grid.began["code"], grid.began["folders"]
    found = [] if files_hashes(code) == code else ["the code of ddlib"]
    if isinstance(work, Job) and notebook_hash(work.notebook) != work.made_with["notebook"]:
        found.append(f"notebooks/{work.notebook}.ipynb")
    used = [work.parameters[name] for name in ("dataset", "source_dataset")]
    return found + [name for name in used if name in folders and folder_hash(name) != folders[name]]


def files_hashes(files: Iterable[str | Path]) -> dict[str, str]:
    """16 hex digits for the bytes of each file, by its path from the project on; empty if it is not there."""
    paths = [ROOT / file for file in files]
    return {os.path.relpath(path, ROOT): bytes_checksum(path) if path.is_file() else "" for path in paths}


def folder_hash(folder: str) -> str:
    """Eight hex digits for the names and bytes of all files in a folder."""
    folder, digest = Path(folder).expanduser(), hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(os.fsencode(f"{path.relative_to(folder).as_posix()} {content}\n"))
    return digest.hexdigest()[:8]


def notebook_hash(notebook: str) -> str:
    """Eight hex digits for the code in a notebook up to where its records are written; comments do not count."""
    code = cells(notebook)[1:]  # without the defaults: they are among the parameters
    last = max((index for index, source in enumerate(code) if COMPUTES in source), default=len(code) - 1)
    return digest([_meaning(source) for source in code[: last + 1]])


def _meaning(source: str) -> str:
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:  # a cell with magics
        return source


def reader_hash() -> str:
    """Eight hex digits for what makes the comparison out of records."""
    study = sorted((ROOT / "ddlib" / "study").glob("*.py"))
    return digest(sorted(files_hashes([COMPARISON, *study, Path(__file__).with_name("compare.py")]).values()))


def reads_as(executed: Path, notebook: str) -> bool:
    """Whether an executed notebook has the text and the code of the notebook of today, prose included."""
    then, now = map(_sources, (executed, ROOT / "notebooks" / f"{notebook}.ipynb"))
    return then == now


def _sources(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if "injected-parameters" not in cell["metadata"].get("tags", [])]


def cells(notebook: str) -> list[str]:
    """The code cells of a notebook of the project, that with the parameters first."""
    return read_cells(ROOT / "notebooks" / f"{notebook}.ipynb")


@cache
def read_cells(path: Path) -> list[str]:
    """The same by the path, read once. Raises GridError if there is no such notebook."""
    try:
        found = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
        found.sort(key=lambda cell: "parameters" not in cell["metadata"].get("tags", []))
        return ["".join(cell["source"]) for cell in found]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GridError(f"{path} cannot be read ({type(error).__name__}); take it from the repository again") from error
