"""The book: its tools, and the pages as built by `make book`."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import same_bits
from made import BOOK, HTML, PAGES, ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ddlib.combine import STRATEGIES
from ddlib.study.arms import Arm
from ddlib.study.parameters import PARAMETERS
from ddlib.study.schema import Record
from workflow import execute
from workflow.grid import read_grid
from workflow.plan import PLAN, plan_text, read_plan

EXECUTED = [page for page in PAGES if page.startswith("executed/")]

built = pytest.mark.skipif(not HTML.exists(), reason="the book is not built: run `make book`")
REMOTE = r"(import|fetch)\(?\s*['\"]https?:|unpkg\.com|jsdelivr|cdnjs|googleapis|require(\.min)?\.js"
ERROR = new_output("error", ename="E", evalue="", traceback=[])


# --- the tools --------------------------------------------------------------------------------------------


def tool(name: str):
    """A script of book/ as a module."""
    spec = importlib.util.spec_from_file_location(name, BOOK / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path: Path, *cells) -> Path:
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (new_code_cell("1", execution_count=1), None),
        (new_code_cell("  "), None),
        (new_code_cell("1"), "not executed"),
        (new_code_cell("1", execution_count=1, outputs=[ERROR]), "error"),
    ],
    ids=["whole", "empty", "unexecuted", "error"],
)
def test_problems_of_an_executed_notebook(tmp_path, cell, problem):
    found = execute.problems(write(tmp_path / "a.ipynb", cell))
    assert (len(found) == 1 and problem in found[0]) if problem else not found


@pytest.mark.parametrize(
    ("source", "message"),
    [("raise ValueError('too small')", "too small"), ("raise SystemExit(0)", "was not executed")],
    ids=["error", "silent exit"],
)
def test_a_notebook_that_ends_early_leaves_no_target(tmp_path, source, message):
    notebook = write(tmp_path / "a.ipynb", new_code_cell(source), new_code_cell("1"))
    command = [
        sys.executable,
        ROOT / "workflow" / "execute.py",
        notebook,
        tmp_path / "out" / "a.ipynb",
        "-k",
        "python3",
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode != 0
    assert message in run.stderr
    assert not (tmp_path / "out" / "a.ipynb").exists()


def test_a_kernel_that_lost_its_port_is_tried_once_more(tmp_path, monkeypatch):
    calls = []

    def run(arguments, standalone_mode):
        calls.append(arguments)
        raise RuntimeError(execute.PORT_RACE[0])

    monkeypatch.setattr(execute.command, "main", run)
    with pytest.raises(SystemExit, match="ipynb failed"):
        execute.papermill(tmp_path / "a.ipynb", tmp_path / "b.ipynb", [])
    assert len(calls) == 2


def test_fold_tags_code_and_respects_other_tags(tmp_path):
    executed, page = tmp_path / "a.ipynb", tmp_path / "page" / "a.ipynb"
    removed = new_code_cell("1", metadata={"tags": ["remove-cell"]})
    tool("fold").fold(write(executed, new_code_cell("1"), removed, new_markdown_cell("α")), page)
    cells = nbformat.read(page, as_version=4).cells
    assert [cell.metadata.tags for cell in cells[:2]] == [["hide-input"], ["remove-cell"]]
    assert cells[2].source == "α"
    assert "hide-input" not in cells[2].metadata.get("tags", [])


def test_a_page_that_would_be_the_same_is_left_alone(tmp_path):
    executed, page = write(tmp_path / "a.ipynb", new_code_cell("1")), tmp_path / "page.ipynb"
    tool("fold").fold(executed, page)
    os.utime(page, ns=(1, 1))
    tool("fold").fold(executed, page)
    assert page.stat().st_mtime_ns == 1
    tool("fold").fold(write(executed, new_code_cell("2")), page)
    assert page.stat().st_mtime_ns > 1
    assert nbformat.read(page, as_version=4).cells[0].source == "2"


@pytest.fixture
def planned(tmp_path):
    """The plan of the smoke sweep, with executed notebooks that hold the name of their job."""
    grid = read_grid(ROOT / "params" / "sweeps" / "smoke.yaml")
    path = tmp_path / PLAN
    path.parent.mkdir()
    path.write_text(plan_text(grid))
    for job in grid.jobs:
        executed = read_plan(path).executed(job)
        executed.parent.mkdir(exist_ok=True)
        write(executed, new_code_cell(job.name))
    return path


def test_the_book_shows_the_arms_that_notebooks_run_by_default_and_the_notebooks_named(tmp_path, planned, monkeypatch):
    fold = tool("fold")
    monkeypatch.setattr(fold, "PAGES", tmp_path / "pages")
    fold.main(str(planned), str(write(tmp_path / "03_compare.ipynb", new_code_cell("of a sweep"))))
    shown = {path.stem: nbformat.read(path, as_version=4).cells[0].source for path in (tmp_path / "pages").iterdir()}
    assert shown == {
        "01_guidance": "01_guidance-clom-seeds0-2",
        "02_ensemble": "02_ensemble-loss_avg-seeds0-2",
        "06_ptm_options": "06_ptm_options-num_ptms2-seeds0-2",
        "03_compare": "of a sweep",
    }


def test_a_notebook_that_is_not_there_is_one_sentence(tmp_path, planned):
    with pytest.raises(SystemExit, match=r"03_compare\.ipynb not found: run `make sweep`"):
        tool("fold").main(str(planned), str(tmp_path / "03_compare.ipynb"))


def test_kernels_wait_asleep(tmp_path):
    """Unless somebody set it otherwise."""
    source = "import os\nassert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'\nassert os.environ['GOMP_SPINCOUNT'] == '7'"
    notebook = write(tmp_path / "a.ipynb", new_code_cell(source))
    command = [sys.executable, ROOT / "workflow" / "execute.py", notebook, tmp_path / "b.ipynb", "-k", "python3"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_WAIT", "GOMP_"))}
    subprocess.run(command, check=True, env=environment | {"GOMP_SPINCOUNT": "7"})
    assert execute.problems(tmp_path / "b.ipynb") == []


# --- the pages --------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page holds that may point elsewhere: ids, links, and the files a browser loads by itself."""

    def __init__(self, name: str):
        super().__init__()
        self.path = HTML / f"{name}.html"
        self.ids, self.links, self.loads, self.images = set(), [], [], 0
        self.feed(self.path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.update(value for key in ("id", "name") if (value := attrs.get(key)))
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if attrs.get("src"):
            self.loads.append(attrs["src"])
            self.images += tag == "img"
        if tag == "link" and attrs.get("rel") in ("stylesheet", "preload", "icon", "shortcut icon"):
            self.loads.append(attrs["href"])


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    return {name: Page(name) for name in PAGES}


@built
@pytest.mark.parametrize("name", PAGES)
def test_every_local_link_and_anchor_resolves(pages, name):
    page, broken = pages[name], []
    for link in page.links + page.loads:
        url = urlsplit(link)
        if url.scheme or url.netloc:
            continue
        target = (page.path.parent / unquote(url.path)).resolve() if url.path else page.path
        known = pages.get(str(target.relative_to(HTML).with_suffix("")))
        missing_anchor = url.fragment and known and unquote(url.fragment) not in known.ids
        if not target.exists() or missing_anchor:
            broken.append(link)
    assert not broken


@built
@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_nothing_from_the_network(pages, name):
    assert not [load for load in pages[name].loads if re.match(r"(https?:)?//", load)]
    assert not re.search(REMOTE, pages[name].path.read_text())


@built
def test_style_sheets_load_nothing_from_the_network():
    sheets = list((HTML / "_static").rglob("*.css"))
    assert sheets
    assert not [s.name for s in sheets if re.search(r"(@import|url\()\s*['\"]?(https?:)?//", s.read_text())]


@built
def test_formulas_are_drawn_by_the_local_mathjax(pages):
    [script] = [load for load in pages["method"].loads if "mathjax" in load]
    assert (HTML / urlsplit(script).path).stat().st_size > 1_000_000
    assert pages["method"].path.read_text().count('class="math notranslate') > 20


@built
def test_sentences_of_a_caption_stand_apart(pages):
    captions = {
        name: [re.sub(r"<[^>]+>", "", text) for text in re.findall(r"<figcaption>(.*?)</figcaption>", html, re.DOTALL)]
        for name, html in ((name, page.path.read_text()) for name, page in pages.items())
    }
    assert len(captions["why"]) == 4
    assert {
        name: text for name, those in captions.items() for text in those if re.search(r"[a-z]\.[A-Z\d]", text)
    } == {}


@built
@pytest.mark.parametrize("name", EXECUTED)
def test_a_notebook_page_is_whole_folded_and_has_figures(pages, name):
    assert not execute.problems(BOOK / f"{name}.ipynb")
    text = pages[name].path.read_text()
    assert pages[name].images >= 1
    assert text.count('<details class="admonition hide') >= 5
    assert "Traceback (most recent call last)" not in text


@built
@pytest.mark.parametrize(
    ("page", "label", "rows"),
    [
        ("parameters", "parameter-table", PARAMETERS),
        ("method", "strategy-table", STRATEGIES),
        ("api/study/record", "record-table", [field.alias or name for name, field in Record.model_fields.items()]),
    ],
)
def test_a_generated_table_has_a_row_for_each(pages, page, label, rows):
    text = pages[page].path.read_text()
    table = text[text.index(f'id="{label}"') :].split("</table>")[0]
    assert re.findall(r"<tr[^>]*><td><p><code[^>]*><span class=\"pre\">(\w+)</span></code></p></td>", table) == list(
        rows
    )


@built
def test_every_executed_notebook_is_whole():
    executed = sorted((ROOT / "runs").glob("book/[0-9]*.ipynb"))
    assert [path.stem for path in executed] == ["00_tour", "04_costs"]
    folder = ROOT / "runs" / "sweeps" / "smoke"
    executed += [read_plan(folder / PLAN).executed(job) for job in read_plan(folder / PLAN).jobs if job.shown]
    executed.append(folder / "notebooks" / "03_compare.ipynb")
    assert len(executed) == 6
    found = {path.name: execute.problems(path) for path in executed}
    assert not any(found.values()), found


def test_every_module_stands_on_one_page_of_the_reference():
    shown = [
        module
        for page in PAGES
        if page.startswith("api/")
        for module in re.findall(r"automodule:: (ddlib[\w.]*)", (BOOK / f"{page}.md").read_text(encoding="utf-8"))
    ]
    files = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "ddlib").rglob("*.py")]
    modules = [".".join(file.parts) for file in files if file.name != "__init__"]
    assert sorted(shown) == sorted(modules)
    pages = [str(path.relative_to(BOOK).with_suffix("")) for path in (BOOK / "api").rglob("*.md")]
    assert sorted(pages) == sorted(page for page in PAGES if page.startswith("api/")), "no page is left out"


@built
@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("core/losses", "losses.clom_loss"),
        ("core/losses", "losses.cclom_loss_from_sums"),
        ("core/combine", "combine.STRATEGIES"),
        ("core/distill", "distill.distill"),
        ("core/evaluate", "evaluate.evaluate"),
        ("core/synthetic", "synthetic.SyntheticSet"),
        ("data/readers", "data.readers.load_dataset"),
        ("ptms/pool", "ptms.pool.train_ptms"),
        ("disk", "disk.tensors.read_tensors"),
        ("study/arms", "study.arms.Arm"),
        ("study/parameters", "study.parameters.Parameters"),
        ("study/record", "study.schema.Record"),
    ],
)
def test_the_reference_shows_the_public_names(pages, page, name):
    assert f"ddlib.{name}" in pages[f"api/{page}"].ids


@built
def test_a_page_of_the_reference_is_not_endless(pages):
    """The whole library on one page had 54,000 pixels."""
    sizes = {name: len(page.path.read_text().splitlines()) for name, page in pages.items() if name.startswith("api/")}
    assert max(sizes.values()) < 3500, sizes


@built
def test_the_reference_prints_no_addresses_and_lists_the_rows_of_tables(pages):
    for name in (name for name in pages if name.startswith("api/")):
        text = pages[name].path.read_text()
        assert not re.search(
            r"&lt;(function |bound method |object |class (&#39;|'|&#x27;))|FieldInfo\(| at 0x", text
        ), name
    rows = pages["api/core/combine"].path.read_text().split("Rows: ")[1].split("</p>")[0]
    assert re.findall(r'<span class="pre">(\w+)</span>', rows) == list(STRATEGIES)


@built
def test_the_method_shows_the_code_that_it_explains(pages):
    text = pages["method"].path.read_text()
    for name in ("clom_loss", "cclom_loss_from_sums", "objective", "weights_mgda", "average_probabilities"):
        assert re.search(rf"def</span>.{{0,60}}{name}</span>", text), name


@built
def test_the_style_sheet_has_the_icons_that_pages_show_and_no_others(pages):
    [sheet] = HTML.glob("_static/styles/pydata-sphinx-theme*.css")
    there = set(re.findall(r"\.(fa-[\w-]+):before", sheet.read_text(encoding="utf-8")))
    shown = {icon for page in pages.values() for icon in re.findall(r"fa-[\w-]+", page.path.read_text())}
    assert {"fa-bars", "fa-download", "fa-magnifying-glass", "fa-chevron-down"} <= there & shown
    assert shown - there <= {"fa-solid", "fa-regular", "fa-brands", "fa-lg", "fa-stack"}, "these are no icons"
    assert len(there) < 60


def test_the_recorded_bits_cover_the_smoke_sweep():
    runs = json.loads(same_bits.FILE.read_text(encoding="utf-8"))["runs"]
    of_grid = set()
    for job in read_grid(ROOT / "params" / "sweeps" / "smoke.yaml").jobs:
        p = SimpleNamespace(**job.parameters)
        seeds = range(p.seed, p.seed + p.num_sets)
        of_grid |= {f"{job.notebook} {Arm.planned(p).name} seed {seed}" for seed in seeds}
    assert set(runs) == of_grid


@built
def test_all_smoke_runs_give_the_same_bits():
    wanted, found = same_bits.reference(), same_bits.records_in(ROOT / "runs" / "sweeps" / "smoke")
    assert {key: bits for key, bits in found.items() if wanted.get(key) != bits} == {}
    assert len(found) == len(wanted)


@built
def test_no_path_of_the_building_machine_is_printed(pages):
    home = str(Path.home())
    for page in pages.values():
        assert str(ROOT) not in page.path.read_text()
        assert home == "/root" or home not in page.path.read_text()
