"""Execute one notebook with papermill, whole or not at all.

``python book/execute.py NOTEBOOK OUTPUT [papermill options]``, called by the Makefile.

Papermill writes its output in place, exits 0 after ``sys.exit(0)`` in a cell, and kernels that start together
can lose a race for a port. So: write beside the target, retry that one failure once, and move into place only
what ran to the last cell without an error.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat

PORT_RACE = ("Kernel died before replying to kernel_info", "Address already in use")


def papermill(notebook: Path, output: Path, options: list[str]) -> None:
    """Run papermill, twice if its kernel did not come up. Raises SystemExit with papermill's message."""
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--log-level", "ERROR"]
    for last in (False, True):
        run = subprocess.run([*command, str(notebook), str(output), *options], capture_output=True, text=True)
        if run.returncode == 0:
            return
        if last or not any(sign in run.stderr for sign in PORT_RACE):
            raise SystemExit(f"{run.stderr[-6000:]}\n{notebook} failed; as far as it came: {output}")


def problems(path: Path) -> list[str]:
    """What keeps an executed notebook from being whole: errors, and cells that never ran. Empty if it is."""
    notebook = nbformat.read(path, as_version=4)
    record = notebook.metadata.get("papermill", {})
    found = ["papermill recorded an exception"] if record.get("exception") else []
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if any(output.output_type == "error" for output in cell.outputs):
            found.append(f"cell {number} holds an error")
        if cell.execution_count is None:
            found.append(f"cell {number} was not executed")
    return found


def main(notebook: str, output: str, *options: str) -> None:
    """Execute ``notebook`` into ``output``; only a whole notebook arrives there."""
    target = Path(output)
    draft = target.with_name(f".{target.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    papermill(Path(notebook), draft, list(options))
    if found := problems(draft):
        raise SystemExit(f"{notebook} ended early: {'; '.join(found)}. As far as it came: {draft}")
    os.replace(draft, target)
    print(f"{target}  {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
