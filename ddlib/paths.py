"""Where things lie on disk: data sets, cached PTMs, run records. Nothing here creates a folder.

An explicit argument wins, then an environment variable (an empty one counts as unset), then a default. All
paths come back absolute, so that a message which names one is not a riddle.
"""

import os
from pathlib import Path


def data_folder(root: str | os.PathLike | None = None) -> Path:
    """The folder of the data sets: `root`, else `DDLIB_DATA`, else `data` in the user's cache of ddlib."""
    return _absolute(root or os.environ.get("DDLIB_DATA") or _user_cache() / "data")


def cache_folder() -> Path:
    """The folder of the trained PTMs: `DDLIB_CACHE`, else `ptms` in the user's cache of ddlib."""
    return _absolute(os.environ.get("DDLIB_CACHE") or _user_cache() / "ptms")


def runs_folder(folder: str | os.PathLike = "") -> Path:
    """The folder of the run records: `folder`, else `DDLIB_RUNS`, else `runs` in the project's root.

    papermill runs a notebook in the caller's folder, Jupyter in the notebook's own. Both must find the same
    records, so the default does not depend on the working folder as long as that lies inside the project.
    """
    return _absolute(folder or os.environ.get("DDLIB_RUNS") or project_root() / "runs")


def benchmarks_folder(folder: str | os.PathLike = "") -> Path:
    """The folder of the benchmarks' records: `folder`, else `benchmarks/results` in the project's root."""
    return _absolute(folder or project_root() / "benchmarks" / "results")


def project_root() -> Path:
    """The nearest parent of the working folder (or itself) with `pyproject.toml` and `notebooks/`.

    Outside of a project it is the working folder.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    return here


def _user_cache() -> Path:
    import platformdirs  # here, so that machines without it need only set the variables

    return platformdirs.user_cache_path("ddlib", appauthor=False)


def _absolute(path: str | os.PathLike) -> Path:
    return Path(path).expanduser().absolute()
