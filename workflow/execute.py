"""Execute one notebook with papermill, whole or not at all.

``python workflow/execute.py NOTEBOOK OUTPUT [papermill options]``, called by the Makefile and by sweeps.

Papermill writes its output in place, exits 0 after ``sys.exit(0)`` in a cell, and kernels that start together
can lose a race for a port. So: write beside the target, retry that one failure once, and move into place only
what ran to the last cell without an error.
"""

import os
import sys
import time
from pathlib import Path

# Threads of the kernel sleep while they wait for each other: one that spins keeps a core busy that another needs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
sys.modules["rfc3987_syntax"] = None  # jsonschema would compile the grammar of web addresses: 1.6 s at each start

import nbformat  # noqa: E402
from papermill.cli import papermill as command  # noqa: E402

PORT_RACE = ("Kernel died before replying to kernel_info", "Address already in use")


def papermill(notebook: Path, output: Path, options: list[str]) -> None:
    """Run papermill, twice if its kernel did not come up. Raises SystemExit with papermill's message."""
    arguments = ["--no-progress-bar", "--log-level", "ERROR", str(notebook), str(output), *options]
    for last in (False, True):
        try:
            command.main(arguments, standalone_mode=False)
            return
        except Exception as error:  # of the notebook, of the kernel, of the options: all end here
            if last or not any(sign in str(error) for sign in PORT_RACE):
                message = f"{str(error)[-6000:]}\n{notebook} failed; as far as it came: {output}"
                raise SystemExit(message) from None


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


def main(notebook: str | Path, output: str | Path, *options: str) -> None:
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
