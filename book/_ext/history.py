"""What git says of the project."""

import os
import subprocess
from pathlib import Path


def git(folder: str | Path, *command: str) -> list[str]:
    """The lines that git says in a folder, times in UTC; none where there is no history, or no git."""
    try:
        said = subprocess.run(
            ["git", "-C", str(folder), *command],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"TZ": "UTC"},
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return said.splitlines()
