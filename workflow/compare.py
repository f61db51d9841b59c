"""The comparison notebook over the records of a sweep, as one page: ``python workflow/compare.py FOLDER PAGE``."""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from workflow.execute import main as execute

if __name__ == "__main__":
    folder, page = map(Path, sys.argv[1:])
    os.environ["DDLIB_RUNS"] = str(folder.absolute())
    executed = folder / "notebooks" / "03_compare.ipynb"
    execute("notebooks/03_compare.ipynb", executed)
    offline = ["--HTMLExporter.mathjax_url=", "--HTMLExporter.require_js_url=", "--HTMLExporter.mermaid_js_url="]
    convert = ["nbconvert", "--to", "html", "--no-input", "--output", page.stem, "--output-dir", str(page.parent)]
    subprocess.run(
        [sys.executable, "-m", "jupyter", *convert, *offline, str(executed), "--log-level", "ERROR"], check=True
    )
