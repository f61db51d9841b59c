"""Where the records of runs and of benchmarks lie. Nothing here creates a folder."""

import os
from pathlib import Path

from ddlib.disk.paths import absolute


def runs_folder(folder: str | os.PathLike | None = None) -> Path:
    """The folder of the run records: `folder`, else `DDLIB_RUNS`, else `runs` in the project's root.

    papermill runs a notebook in the caller's folder, Jupyter in the notebook's own. Both must find the same
    records, so the default does not depend on the working folder as long as that lies inside the project.
    """
    return absolute(folder or os.environ.get("DDLIB_RUNS") or project_root() / "runs")


def benchmarks_folder(folder: str | os.PathLike | None = None) -> Path:
    """The folder of the benchmarks' records: `folder`, else `benchmarks/results` in the project's root."""
    return absolute(folder or project_root() / "benchmarks" / "results")


def shown(path: Path) -> str:
    """A path for the eyes: from the project's root on if it lies inside, so that the book names no machine."""
    root = project_root().absolute()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def project_root() -> Path:
    """The nearest parent of the working folder (or itself) with `pyproject.toml` and `notebooks/`.

    Outside of a project it is the working folder.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    return here
