"""The comparison over the records of a sweep, and no others, as one page.

``python workflow/compare.py PLAN MARKER PAGE``; the marker says what the page was made of.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ddlib.disk.files import replacing
from ddlib.study.alphas import alpha_folders
from ddlib.study.record import read_record, synthetic_path
from workflow.execute import main as execute
from workflow.inputs import COMPARISON
from workflow.markers import write_marker
from workflow.plan import Grid, read_plan

OFFLINE = [f"--HTMLExporter.{name}=" for name in ("mathjax_url", "require_js_url", "mermaid_js_url")]


def gather(grid: Grid, folder: Path) -> None:
    """Copy the records of the grid's jobs as they are now: not those of arms that are gone, nor of other code."""
    for job in grid.jobs:
        for record in (grid.folder / name for name in job.records):
            try:
                current = read_record(record)["code_hash"] == job.made_with["code"]
            except (OSError, ValueError) as error:
                print(f"left out: {error}")
                continue
            if current:
                for file in filter(Path.is_file, (record, synthetic_path(record))):
                    shutil.copy2(file, folder)


def main(plan: str, marker: str, page: str) -> None:
    """Execute the notebook and convert it."""
    grid, start = read_plan(plan), time.perf_counter()
    executed = grid.folder / "notebooks" / COMPARISON.name
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder, grid.folder.name)
        records.mkdir()
        gather(grid, records)
        for held_out in alpha_folders(grid.folder):
            Path(folder, held_out.name).symlink_to(held_out.resolve())
        os.environ["DDLIB_RUNS"] = str(records)
        execute(COMPARISON, executed)
        convert = [sys.executable, "-m", "jupyter", "nbconvert", str(executed), "--to", "html", "--no-input", *OFFLINE]
        subprocess.run([*convert, "--output-dir", folder, "--output", "page", "--log-level", "ERROR"], check=True)
        with replacing(Path(page)) as temporary:
            shutil.copyfile(Path(folder, "page.html"), temporary)
    files = [executed, grid.folder / "comparison.html"]
    write_marker(Path(marker), grid.comparison_identity, files, time.perf_counter() - start, grid.folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
