"""Put executed notebooks into the book with their code folded.

``python book/fold.py PLAN NOTEBOOK ...``, called by the Makefile: of the sweep with this plan the arms that its
notebooks run by default, and the executed notebooks named. The tag ``hide-input`` is Jupyter Book's word for a code
cell that opens with a click; setting it here keeps the notebooks themselves free of it. A page that would be the same
is left alone, so that it is not built again.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from workflow.plan import read_plan

PAGES = Path(__file__).parent / "executed"


def shown(plan: Path) -> dict[str, Path]:
    """The executed notebooks of the arms that the book shows, by the names of their notebooks."""
    grid = read_plan(plan)
    jobs = reversed(grid.jobs)  # of several jobs of a notebook the first one stays
    return {job.notebook: grid.executed(job) for job in jobs if job.shown}


def folded(notebook: dict) -> dict:
    """The notebook with every code cell tagged ``hide-input``, unless a tag says something else."""
    for cell in notebook["cells"]:
        tags = cell["metadata"].setdefault("tags", [])
        if cell["cell_type"] == "code" and not any(tag.startswith(("hide-", "remove-")) for tag in tags):
            tags.append("hide-input")
    return notebook


def fold(executed: Path, page: Path) -> None:
    """Write ``executed`` to ``page``, folded."""
    text = json.dumps(folded(json.loads(executed.read_text(encoding="utf-8"))), indent=1, ensure_ascii=False) + "\n"
    if not page.is_file() or page.read_text(encoding="utf-8") != text:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")


def main(plan: str, *notebooks: str) -> None:
    """Fold all pages. Ends with one sentence if a notebook is not there."""
    pages = shown(Path(plan)) | {Path(path).stem: Path(path) for path in notebooks}
    if missing := [str(path) for path in pages.values() if not path.is_file()]:
        sys.exit(f"{', '.join(missing)} not found: run `make sweep` with the grid of that folder first")
    for name, executed in pages.items():
        fold(executed, PAGES / f"{name}.ipynb")


if __name__ == "__main__":
    main(*sys.argv[1:])
