"""Where things lie on disk: data sets, cached PTMs, run records. Nothing here creates a folder.

An explicit argument wins, then an environment variable (an empty one counts as unset), then a default. All
paths come back absolute, so that a message which names one is not a riddle.
"""

import math
import os
from pathlib import Path


def data_folder(root: str | os.PathLike | None = None) -> Path:
    """The folder of the data sets: `root`, else `DDLIB_DATA`, else `data` in the user's cache of ddlib."""
    return _absolute(root or os.environ.get("DDLIB_DATA") or _user_cache() / "data")


def cache_folder() -> Path:
    """The folder of the trained PTMs: `DDLIB_CACHE`, else `ptms` in the user's cache of ddlib."""
    return _absolute(os.environ.get("DDLIB_CACHE") or _user_cache() / "ptms")


def cache_limit() -> float:
    """What the PTMs in the cache may take, in bytes: `DDLIB_CACHE_LIMIT` in gigabytes (10^9 bytes), else no limit.

    Raises ValueError if the variable is no number above 0.
    """
    text = os.environ.get("DDLIB_CACHE_LIMIT") or "inf"
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = math.nan
    if not limit > 0:
        raise ValueError(f"DDLIB_CACHE_LIMIT is {text!r}; expected gigabytes, such as 20 or 0.5")
    return limit


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
    return Path(os.path.expanduser(path)).absolute()  # Path's own raises on a user that is not there
