"""Where data sets and trained PTMs lie on disk. Nothing here creates a folder.

An explicit argument wins, then an environment variable (an empty one counts as unset), then a default. All
paths come back absolute, so that a message which names one is not a riddle.
"""

import os
from pathlib import Path


def data_folder(root: str | os.PathLike | None = None) -> Path:
    """The folder of the data sets: `root`, else `DDLIB_DATA`, else `data` in the user's cache of ddlib."""
    return absolute(root or os.environ.get("DDLIB_DATA") or _user_cache() / "data")


def cache_folder() -> Path:
    """The folder of the trained PTMs: `DDLIB_CACHE`, else `ptms` in the user's cache of ddlib."""
    return absolute(os.environ.get("DDLIB_CACHE") or _user_cache() / "ptms")


def _user_cache() -> Path:
    import platformdirs  # here, so that machines without it need only set the variables

    return platformdirs.user_cache_path("ddlib", appauthor=False)


def absolute(path: str | os.PathLike) -> Path:
    """The path without `~`, from the root on."""
    return Path(os.path.expanduser(path)).absolute()  # Path's own raises on a user that is not there
