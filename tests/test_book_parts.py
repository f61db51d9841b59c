"""Parts of the book's extensions that need no built book: labels, data in scripts, words of the reference."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import author_year
import numpy as np
import plain_reference
import pytest
import torch
from author_year import AuthorYear
from made import ROOT
from PIL import Image
from pybtex.database import Entry, Person
from shown import explorer, figures, findings
from shown.pages import as_script

from ddlib.study.images import atlas, turned
from ddlib.synthetic import SyntheticSet


def entry(*names, year="2023"):
    return Entry("article", [("year", year)], persons={"author": [Person(name) for name in names]})


def test_labels_are_authors_and_year_and_a_letter_where_two_are_alike():
    lu, zhao = entry("Lu, Yao", "Chen, Xuguang", "Zhang, Yuchen"), entry("Zhao, Bo", "Bilen, Hakan", year="2021")
    found = list(AuthorYear().format_labels([lu, zhao, lu, entry("van der Maaten, Laurens", year="2008")]))
    assert found == ["Lu et al., 2023a", "Zhao and Bilen, 2021", "Lu et al., 2023b", "van der Maaten, 2008"]
    assert author_year.setup(None)["parallel_read_safe"]


def test_data_in_a_script_cannot_end_it():
    data = {"classes": ["</script><script>alert(1)</script>", "<!--", "é 猫"]}
    text = as_script(data)
    assert "</" not in text
    assert json.loads(text) == data


@pytest.mark.parametrize(
    ("what", "found", "lines", "expected"),
    [
        ("attribute", 1, ["shape: of an image"], ["shape:", "of an image"]),
        ("function", 1, ["shape: of an image"], ["shape: of an image"]),
        ("data", {"dm": 1, "dc": 2}, ["The methods."], ["The methods.", "", "Rows: ``dm``, ``dc``."]),
    ],
)
def test_the_reference_says_plainly_what_a_table_holds(what, found, lines, expected):
    plain_reference.say_plainly(None, what, "name", found, None, lines)
    assert lines == expected


def test_members_that_nobody_wrote_are_left_out():
    alias = SimpleNamespace(__doc__="Alias for field number 0")
    assert plain_reference.skip(None, "class", "images", alias, False, None)
    assert plain_reference.skip(None, "class", "model_config", object(), False, None)
    assert plain_reference.skip(None, "class", "images", object(), False, None) is None


def test_a_chart_that_there_is_not_is_an_error_that_lists_those_there_are():
    with pytest.raises(ValueError, match=r"no chart is called 'pie'; known: forest, effects, .*gains"):
        figures.draw("pie", findings.of_chapter("guidance"))


def test_a_case_of_a_chart_that_has_none_is_an_error():
    with pytest.raises(ValueError, match=r"the chart 'forest' has no cases, .* \(case: 'DSA'\); only 'alpha' has"):
        figures.draw("forest", findings.of_chapter("guidance"), "DSA")


@pytest.mark.parametrize("counts", [[2, 2, 2], [1, 3, 2]])
def test_a_picture_of_a_set_turned_is_the_atlas_of_the_explorer(tiny_rgb, tmp_path, counts):
    """What the study keeps of a set has a row for each class; the explorer a column."""
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    synthetic = SyntheticSet.of(tiny_rgb, tiny_rgb.train.images[: len(labels)], labels)
    synthetic.save_grid(tmp_path / "kept.png", gap=0)
    with Image.open(tmp_path / "kept.png") as kept:
        found = turned(np.asarray(kept), 3)
    rows = max(counts)
    assert found.shape == (16 * rows, 16 * 3, 3)
    for label, images in enumerate(synthetic.pixels.split(counts)):
        for row, image in enumerate(images):
            tile = found[16 * row : 16 * (row + 1), 16 * label : 16 * (label + 1)]
            assert np.abs(tile - 255.0 * image.clamp(0, 1).permute(1, 2, 0).numpy()).max() <= 0.5 + 1e-4
    assert np.array_equal(found, atlas(synthetic.pixels, synthetic.classes))


def test_the_explorer_holds_each_set_that_has_a_picture(monkeypatch):
    found = findings.of_chapter("guidance")
    run = found.sets["run"].iloc[3]
    monkeypatch.setattr(explorer, "pictures_of", lambda _: {run: b"png"})
    html, files = explorer.explorer(found)
    data = json.loads(re.search(r'explorer-data">(.*)</script>', html)[1])
    assert [one["src"] for one in data["sets"]] == [f"pictures/{run}.png"]
    assert files[f"pictures/{run}.png"] == b"png"
    assert data["classes"] == list(found.records.iloc[0]["class_names"])
    monkeypatch.setattr(explorer, "pictures_of", lambda _: {})
    assert explorer.explorer(found) is None


def test_pages_find_the_workflow_wherever_the_book_is_built(tmp_path):
    """Sphinx knows the extensions' folder alone."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import shown.literature"
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "book" / "_ext")], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
