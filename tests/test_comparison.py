"""What the page of comparisons puts beside an ablation, and that each ablation has a part of it."""

import nbformat
import pandas as pd
from made import ROOT, records_of

from ddlib.study import comparison, runs, tables
from ddlib.study.ablations import ABLATIONS


def test_beside_a_longer_run_stands_one_without_guidance_that_took_as_long(ensemble_runs):
    tested = ensemble_runs.assign(iterations=100)
    unguided = pd.DataFrame(
        [row for n in (100, 400, 800) for row in records_of("01_guidance", "none", 0.3, iterations=n, run=f"none {n}")]
    )
    other = unguided[unguided["iterations"] == 400].assign(ipc=10, run="another setting")
    records = pd.concat([tested, unguided, other], ignore_index=True)
    shown = comparison.as_long(records, tested)
    assert set(shown["arm"]) == {"no guidance, 400 iterations"}
    assert len(shown) == 12
    table = tables.accuracy_table(runs.stacked(tested, shown))
    assert table.index[-1] == "no guidance, 400 iterations"
    assert comparison.as_long(records, tested[~tested["equal_passes"]]).empty
    assert comparison.as_long(records, ensemble_runs).empty, "records that do not say how long"
    file = unguided.head(1).assign(base_method="file", arm="my set", iterations=None)  # makes it a column of floats
    beside = comparison.as_long(pd.concat([records, file], ignore_index=True), tested)
    assert set(beside["arm"]) == {"no guidance, 400 iterations"}
    two = tested.assign(num_ptms=2, ptm_architectures="ConvNet-3, VGG-11,")
    assert set(comparison.as_long(records, two)["arm"]) == {"no guidance, 400 iterations"}


def test_each_ablation_is_a_notebook_with_its_title_and_a_part_of_the_comparison():
    notebooks = ROOT / "notebooks"
    headings = [
        line.strip()
        for cell in nbformat.read(notebooks / "03_compare.ipynb", as_version=4).cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
    ]
    for name, row in ABLATIONS.items():
        first = nbformat.read(notebooks / f"{name}.ipynb", as_version=4).cells[0].source.splitlines()[0]
        assert first == f"# {row.title}"
        # what plans contrasts has a part of its own, all else is among the further ones
        assert (f"## {row.title}" in headings) == bool(row.primary([]))
