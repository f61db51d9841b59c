"""The rules that the book tells are those that the code follows."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import rules
from made import BOOK

from ddlib.study import contrasts, statistics
from ddlib.study.contrasts import sets_needed


def test_numbers_in_the_pages_are_those_of_the_code():
    assert rules.number_of("sets") == str(statistics.STUDY_SETS)
    assert rules.number_of("pairs") == str(statistics.MIN_PAIRS) == str(sets_needed())
    assert rules.number_of("margin") == "± 1 point"
    most = int(rules.number_of("most contrasts"))
    assert sets_needed(most) == statistics.STUDY_SETS < sets_needed(most + 1)
    assert float(rules.number_of("smallest p")) == 2 / 2 ** (contrasts.MIN_PAIRS - 1) > statistics.LEVEL
    with pytest.raises(ValueError, match="no rule is called 'n'; known: sets, pairs"):
        rules.number_of("n")


def test_values_in_the_pages_are_those_of_the_profiles():
    assert rules.value_of("desk.num_eval") == "1"
    assert rules.value_of("paper.alpha_clom") == "2000"
    for wrong in ("desk.nothing", "elsewhere.ipc"):
        with pytest.raises(ValueError, match="there is no"):
            rules.value_of(wrong)


@pytest.mark.parametrize("page", ["protocol", "hypotheses"])
def test_every_role_in_the_pages_is_known(page):
    text = (BOOK / f"{page}.md").read_text()
    roles = re.findall(r"\{(rule|param)\}`([^`]+)`", text)
    assert len(roles) > 3
    for kind, words in roles:
        assert (rules.number_of if kind == "rule" else rules.value_of)(words)
    for file in re.findall(r"literalinclude\} (\S+)", text):
        assert (BOOK / file).is_file()


@pytest.mark.parametrize(("notebook", "grid"), [("01_guidance", "desk-guidance"), ("02_ensemble", "desk-ensemble")])
def test_the_page_lists_the_contrasts_that_are_planned_and_can_be_decided(notebook, grid):
    rows = rules.planned_rows(notebook, grid)
    assert {row[3] for row in rows} == {str(statistics.STUDY_SETS)}
    family = [row for row in rows if row[2] == "exploratory"]
    assert 10 <= len(family) <= int(rules.number_of("most contrasts"))
    primary = [row[0] for row in rows if row[2] == "primary"]
    words = {
        "01_guidance": ["CLoM − CCLoM"],
        "02_ensemble": [
            "CLoM: average of losses − one at random",
            "CLoM: average of losses (every 5th update) − one at random",
        ],
    }
    assert primary == words[notebook]


def git(folder: Path, *command: str) -> None:
    me = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    subprocess.run(["git", "-C", str(folder), *me, *command], check=True, capture_output=True)


def test_the_page_says_when_it_was_committed(tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    git(whole, "init")
    for text in ("one", "two"):
        (whole / "page.md").write_text(text)
        (whole / "other.md").write_text("the same")
        git(whole, "add", "-A")
        git(whole, "commit", "-m", text)
    monkeypatch.setattr(rules, "ROOT", whole)
    at = r"\w+ at [-\d]{10} [:\d]{5} UTC"
    assert re.fullmatch(rf"page.md: first committed as {at}, last changed by {at}\.", rules.committed("page.md"))
    assert re.fullmatch(rf"other.md: first committed as {at}, not changed since\.", rules.committed("other.md"))
    assert rules.committed("none.md") == "When none.md was committed is not known here: there is no history of it."
    git(tmp_path, "clone", "--depth", "1", f"file://{whole}", str(cut))
    monkeypatch.setattr(rules, "ROOT", cut)
    assert rules.committed("page.md") == "When page.md was first committed is not known here: the history is cut off."
    monkeypatch.setattr(rules, "ROOT", tmp_path)
    assert rules.committed("page.md") == "When page.md was committed is not known here: there is no history of it."


def test_the_page_says_when_test_images_were_first_used(tmp_path):
    assert rules.first_test_run([tmp_path]) == "No run of the two ablations on test images is in the book yet."
    for name, created in (("a", "2026-11-27T10:00:00+00:00"), ("b", "2026-11-26T18:05:59+00:00")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"created": created}))
    said = "The first run of the two ablations on test images was recorded at 2026-11-26 18:05 UTC."
    assert rules.first_test_run([tmp_path]) == said
    assert rules.first_test_run([tmp_path], "of desk-options").startswith(
        "The first run of desk-options on test images"
    )
