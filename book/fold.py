"""Put an executed notebook into the book with its code folded.

``python book/fold.py EXECUTED PAGE``, called by the Makefile. The tag ``hide-input`` is Jupyter Book's word
for a code cell that opens with a click; setting it here keeps the notebooks themselves free of it.
"""

import sys
from pathlib import Path

import nbformat


def fold(executed: Path, page: Path) -> None:
    """Write ``executed`` to ``page`` with every code cell tagged ``hide-input``."""
    notebook = nbformat.read(executed, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tags = cell.metadata.setdefault("tags", [])
            if not any(tag.startswith(("hide-", "remove-")) for tag in tags):
                tags.append("hide-input")
    page.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, page)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    fold(Path(sys.argv[1]), Path(sys.argv[2]))
