"""The tables of the book that are generated from the library: each row once, with what the library says."""

import re

import code_tables
import directives
import pytest
from made import BOOK

from ddlib.combine import STRATEGIES
from ddlib.study.parameters import PARAMETERS
from ddlib.study.schema import Record


def first_column(rows):
    return [row[0].strip("`") for row in rows]


def test_every_parameter_stands_once():
    rows = code_tables.parameter_rows()
    assert first_column(rows) == list(PARAMETERS)
    assert rows[first_column(rows).index("lr_img")] == [
        "`lr_img`",
        "`float or None`",
        "a number above 0, or None for the choice of the method's authors",
        "`None`",
        "learning rate of the pixels",
    ]


def test_every_strategy_stands_once_with_its_rule_cost_and_source():
    rows = code_tables.strategy_rows({})
    assert first_column(rows) == list(STRATEGIES)
    row = STRATEGIES["pcgrad"]
    assert rows[first_column(rows).index("pcgrad")][1:] == ["PCGrad", row.rule, row.cost, row.source]
    assert rows[first_column(rows).index("loss_avg")][2] == r"gradient of $\mathrm{mean}_k$ $L_k$"
    assert rows[first_column(rows).index("grad_norm_avg")][2] == r"mean of $g_k$ / \|$g_k$\|, times the mean norm"
    assert rows[first_column(rows).index("grad_avg")][4] == r"identical to loss\_avg"


def test_a_strategy_registered_at_run_time_stands_there_too(monkeypatch):
    monkeypatch.setitem(STRATEGIES, "dummy", STRATEGIES["single"])
    assert code_tables.strategy_rows({"dummy": "this test"})[-1] == [
        "`dummy`",
        "dummy",
        "one fixed PTM",
        "F + B",
        "this test",
    ]


def test_a_citation_of_no_strategy_is_refused():
    with pytest.raises(ValueError, match=r"no strategy is called randon; known: single, random"):
        code_tables.strategy_rows({"randon": "{cite:t}`key`", "random": "fine"})


def test_every_field_of_a_record_stands_once_with_a_meaning():
    rows = code_tables.record_rows()
    assert first_column(rows) == [field.alias or name for name, field in Record.model_fields.items()]
    assert all(meaning for _, meaning in rows)


def test_the_pages_show_the_tables_and_cite_what_there_is():
    files = [path for path in BOOK.rglob("*.md") if "_build" not in path.parts]
    pages = {path.relative_to(BOOK).as_posix(): path.read_text(encoding="utf-8") for path in files}
    shown = {"parameters": "parameters.md", "strategies": "method.md", "record-fields": "api/"}
    for name, page in shown.items():  # a caption with a backtick would end the fence
        fence = re.compile(r"^```\{" + name + r"\} [^`\n]*$", re.MULTILINE)
        [found] = [found for found, text in pages.items() if fence.search(text)]
        assert found.startswith(page)
    body = re.search(r"```\{strategies\}.*?\n\n(.*?)```\n", pages["method.md"], re.DOTALL)[1]
    sources = dict(line.split(": ", 1) for line in body.splitlines())
    assert len(sources) >= 6
    assert [row[4] for row in code_tables.strategy_rows(sources) if row[0].strip("`") in sources] == list(
        sources.values()
    )


def test_a_table_in_lines_of_markdown():
    lines = directives.list_table("A caption.", "a-label", ["x", "y"], [["1", "2"]])
    assert lines == [
        "```{list-table} A caption.",
        ":name: a-label",
        ":header-rows: 1",
        "",
        "* - x",
        "  - y",
        "* - 1",
        "  - 2",
        "```",
    ]
    assert ":name:" not in "".join(directives.list_table("", "", ["x"], []))
