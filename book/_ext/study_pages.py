"""Sphinx extension: what pages say about the study, generated from records by the modules of ``shown``.

``{num}`` is a number in prose, ``{claim}`` words that a contrast bears out. ``{evidence}`` says what a page rests on,
``{answers}`` are the cards of the first screen, ``{chart}`` is a figure that works without a script, with its data,
``{results}`` a table, ``{explorer}`` shows synthetic images, ``{toy}`` combines gradients by hand, ``{literature}``
sets published accuracies beside ours, ``{runs-table}`` lists what was run, ``{commands}`` is a block of commands with
the address of the repository, ``{cite-this}`` a BibTeX entry. Pages are built again when a record changes.
"""

import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import ClassVar

import yaml
from directives import parsed
from docutils import nodes
from docutils.parsers.rst import directives
from shown import account, explorer, figures, findings, literature, plans, result_tables, toy
from shown.cards import card
from shown.chapters import CHAPTERS
from shown.charts import bundle
from shown.findings import Findings
from shown.pages import Files
from shown.result_tables import html_table
from shown.sentences import claim, computing, evidence, number
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective, SphinxRole


class Generated(nodes.General, nodes.Element):
    """HTML, and the files that belong to it (``Files``), written with the page."""


def generated(html: str, files: Files | None = None, scripts: Iterable[str] = ()) -> Generated:
    """A node, of HTML and of the files and scripts that it needs."""
    return Generated("", html=html, files=files or {}, scripts=list(scripts))


def visit(self: object, node: Generated) -> None:
    """Write the files and the HTML."""
    out = Path(self.builder.outdir)
    for name, content in node["files"].items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    self.body.append(node["html"])
    raise nodes.SkipNode


def depends_on_records(env: BuildEnvironment) -> None:
    """The page that is read is built again when a record changes."""
    if not hasattr(env, "study_pages"):
        env.study_pages = set()
    env.study_pages.add(env.docname)


class FromRecords(SphinxDirective):
    """A directive whose content depends on records."""

    def findings_of(self, key: str) -> Findings:
        """Those of a chapter that an argument names."""
        if key not in CHAPTERS:
            raise self.error(f"no chapter is called {key!r}; known: {', '.join(CHAPTERS)}")
        return findings.of_chapter(key)


class SaidByRecords(SphinxRole):
    """A role whose words depend on records."""

    def said(self) -> nodes.Node:
        """The words. Raises KeyError or ValueError for what the records do not say."""
        raise NotImplementedError

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The words, or an error of the page."""
        depends_on_records(self.env)
        try:
            return [self.said()], []
        except (KeyError, ValueError) as problem:
            message = self.inliner.reporter.error(f"{self.rawtext}: {problem}", line=self.lineno)
            return [nodes.problematic(self.rawtext, self.rawtext)], [message]


class Num(SaidByRecords):
    """``{num}``: one number."""

    def said(self) -> nodes.Node:
        """The number."""
        return nodes.inline("", number(self.text), classes=["num"])


class Claim(SaidByRecords):
    """``{claim}``: words that a contrast bears out, and a link to its row."""

    def said(self) -> nodes.Node:
        """The link."""
        words, told, address = claim(self.text)
        return nodes.reference("", words, refuri=address, reftitle=told, classes=["claim"])


class Evidence(FromRecords):
    """``{evidence} guidance ensemble``: of each chapter scale, n, dates, commit, what is missing; folded, its cost."""

    required_arguments = 1
    optional_arguments = len(CHAPTERS) - 1

    def run(self) -> list[nodes.Node]:
        """A box with a paragraph for each, and with what they took to unfold."""
        depends_on_records(self.env)
        lasting, paragraphs, took = True, [], []
        for key in self.arguments:
            found = self.findings_of(key)
            first, *rest = evidence(key)
            lasting = lasting and found.lasting
            title = found.chapter.title
            where = f"{escape(title[0].upper() + title[1:])}. " if len(self.arguments) > 1 else ""
            paragraphs.append(f"<p><strong>{where}{escape(first)}</strong> {escape(' '.join(rest))}</p>")
            if lines := computing(key):
                took.append(f"<p>{where}{escape(' '.join(lines))}</p>")
        if took:
            paragraphs.append(f"<details><summary>Time, machines and PTMs</summary>{''.join(took)}</details>")
        kind = "evidence" if lasting else "evidence none"
        return [generated(f'<div class="{kind}">{"".join(paragraphs)}</div>\n')]


class Answers(FromRecords):
    """``{answers}``: a card for each of the two questions. A line of the body is ``<chapter>: <question>``."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Both cards."""
        depends_on_records(self.env)
        cards = []
        for line in filter(None, self.content):
            key, _, question = line.partition(": ")
            self.findings_of(key.strip())  # or an error
            cards.append(card(key.strip(), question))
        return [generated(f'<div class="answers">{"".join(cards)}</div>\n')]


TOLD = ("gradients", "gains", "recognised")  # charts whose caption says in numbers what is seen


class Chart(FromRecords):
    """``{chart} forest guidance``: the kinds are those of ``figures.draw``. The body is the caption."""

    required_arguments = 2
    has_content = True
    option_spec: ClassVar = {"name": directives.unchanged, "case": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """A numbered figure, or a sentence that says what is missing."""
        depends_on_records(self.env)
        kind, key = self.arguments
        found = self.findings_of(key)
        try:
            chart = figures.draw(kind, found, self.options.get("case"))
        except ValueError as problem:
            raise self.error(str(problem)) from problem
        if chart is None:
            return parsed(self, [f"*No figure yet: too few runs to draw ({plans.state(found.chapter.grid)}).*"])
        name = "-".join([kind, key, *re.findall(r"\w+", self.options.get("case", "").lower())])
        drawn = generated(*figures.drawn(name, chart), ["../charts/charts.js"])
        figure = nodes.figure("", drawn, classes=["chart"])
        caption = nodes.caption()
        told = ["", chart.seen] if kind in TOLD else []
        told += [] if found.lasting else ["", "*Smoke runs: no evidence.*"]
        for child in parsed(self, [*self.content, *told]):
            caption += nodes.Text(" " if len(caption) else "")
            caption += child.children if isinstance(child, nodes.paragraph) else [child]
        figure += caption
        self.set_source_info(figure)
        figure["names"].append(self.options.get("name", f"fig-{name}"))
        self.state.document.note_explicit_target(figure)
        return [figure]


class Results(FromRecords):
    """``{results} contrasts guidance``, a kind of ``result_tables.KINDS``; on a phone a card for each row."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """The table."""
        depends_on_records(self.env)
        for name in ("expectations", "expected_sizes"):
            self.env.note_dependency(str(plans.ROOT / "book" / f"{name}.yaml"))
        kind, key = self.arguments
        if kind not in result_tables.KINDS:
            raise self.error(f"no table is called {kind!r}; known: {', '.join(result_tables.KINDS)}")
        found = self.findings_of(key)
        cells = result_tables.KINDS[kind](found)
        if not cells.rows:
            return parsed(self, [f"*No table yet: too few runs to compare ({plans.state(found.chapter.grid)}).*"])
        called = {"contrasts": key, "transfer": f"{key} transfer"}  # those that claims lead to
        return [generated(html_table(*cells, called=called.get(kind, "")))]


class Literature(FromRecords):
    """``{literature} cifar10``: accuracies of ``published.yaml`` beside ours."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A row for each method and number of images."""
        depends_on_records(self.env)
        path = plans.ROOT / "book" / "published.yaml"
        self.env.note_dependency(str(path))
        published = yaml.safe_load(path.read_text(encoding="utf-8"))
        if self.arguments[0] not in published:
            raise self.error(f"nothing published on {self.arguments[0]!r}; known: {', '.join(published)}")
        rows = literature.rows(published[self.arguments[0]], self.arguments[0])
        return [generated(html_table(literature.HEAD, rows))]


class RunsTable(FromRecords):
    """``{runs-table} sweeps``: when they ran, and with which code; ``arms``: all that are planned; ``twice``: sets that
    two sweeps made."""

    required_arguments = 1
    kinds: ClassVar = {
        "sweeps": (["sweep", "days", "runs", "arms", "commit"], account.sweeps),
        "arms": (["sweep", "arm", "runs", "hours"], account.arms),
        "twice": (["made for", "and for", "sets", "same bits", "others, points", "CPU name differs"], account.twice),
    }

    def run(self) -> list[nodes.Node]:
        """A table, or a sentence where it would be empty."""
        depends_on_records(self.env)
        if self.arguments[0] not in self.kinds:
            raise self.error(f"no table is called {self.arguments[0]!r}; known: {', '.join(self.kinds)}")
        head, rows_of = self.kinds[self.arguments[0]]
        rows = rows_of()
        return [generated(html_table(head, rows))] if rows else parsed(self, ["*No run of the study is there yet.*"])


class Explorer(FromRecords):
    """``{explorer} guidance``: synthetic sets, two at a time, and their difference."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Controls by script; without one, the first set as a picture."""
        depends_on_records(self.env)
        found = self.findings_of(self.arguments[0])
        if not (shown := explorer.explorer(found)):
            return parsed(self, [f"*No images yet ({plans.state(found.chapter.grid)}).*"])
        return [generated(*shown, ["../explorer/explorer.js"])]


class Toy(SphinxDirective):
    """``{toy}``: three gradients in the plane, and what each rule makes of them."""

    def run(self) -> list[nodes.Node]:
        """A picture; with a script its arrows can be moved."""
        return [generated(toy.toy(), {}, ["../toy/toy.js"])]


class Commands(SphinxDirective):
    """``{commands}``: commands to copy; ``REPOSITORY`` stands for the address of the repository."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """A block of code."""
        text = "\n".join(self.content).replace("REPOSITORY", self.config.repository_address)
        return [nodes.literal_block(text, text, language="console")]


class CiteThis(SphinxDirective):
    """``{cite-this}``: a BibTeX entry with version, date and commit."""

    def run(self) -> list[nodes.Node]:
        """A block of code."""
        self.env.note_reread()  # the commit is in no file that Sphinx watches
        about = self.config.html_context
        address = self.config.repository_address
        lines = [
            "@misc{ddlib,",
            f"  title  = {{{self.config.html_title}}},",
            f"  author = {{{{{self.config.author}}}}},",
            f"  year   = {{{about['build_date'][:4]}}},",
            f"  note   = {{Version {about['build_version']}, {about['build_date']}, commit {about['build_commit']}}},",
            *([] if address.startswith("<") else [f"  url    = {{{address}}},"]),
            "}",
        ]
        text = "\n".join(lines)
        return [nodes.literal_block(text, text, language="bibtex")]


COMMANDS = {
    "executed/00_tour": "papermill notebooks/00_tour.ipynb out.ipynb",
    "executed/01_guidance": "papermill notebooks/01_guidance.ipynb out.ipynb -f params/smoke.yaml",
    "executed/02_ensemble": "papermill notebooks/02_ensemble.ipynb out.ipynb -f params/smoke.yaml",
    "executed/06_ptm_options": "papermill notebooks/06_ptm_options.ipynb out.ipynb -f params/smoke.yaml",
    "executed/03_compare": "papermill notebooks/03_compare.ipynb out.ipynb -p runs_folder runs/sweeps/smoke",
    "executed/04_costs": "make bench && papermill notebooks/04_costs.ipynb out.ipynb",
}
SWEEPS: dict[str, list[str]] = {}
for chapter in CHAPTERS.values():
    SWEEPS.setdefault(chapter.page, []).append(f"params/sweeps/{chapter.grid}.yaml")
SWEEPS.pop("elsewhere")  # not to be run before the alphas of desk-elsewhere-alpha stand in it
COMMANDS |= {page: f'make study STUDY="{" ".join(files)}" && make book' for page, files in SWEEPS.items()}


def say_how_it_was_made(app: Sphinx, doctree: nodes.document) -> None:
    """At the end of pages with results: the command that makes them, to copy."""
    command = COMMANDS.get(app.env.docname)
    sections = [child for child in doctree.children if isinstance(child, nodes.section)]
    if command and sections:
        block = nodes.literal_block(command, command, language="console")
        words = nodes.paragraph("", "The command that makes this page:")
        sections[-1] += nodes.container("", words, block, classes=["origin-of-page"])


def outdated(app: Sphinx, env: BuildEnvironment, added: set, changed: set, removed: set) -> list[str]:
    """Pages with numbers from records, if a record changed."""
    now = findings.state_of_records()
    before, env.study_state = getattr(env, "study_state", None), now
    return [] if before == now else sorted(getattr(env, "study_pages", set()) & env.found_docs)


def add_scripts(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Scripts of a page's own figures alone."""
    wanted = [script for node in doctree.findall(Generated) for script in node["scripts"]] if doctree else []
    for script in dict.fromkeys(wanted):
        app.add_js_file(script, loading_method="defer")


def write_bundle(app: Sphinx, error: Exception | None) -> None:
    """The scripts that draw charts, once for all pages."""
    if error is None and isinstance(app.builder, StandaloneHTMLBuilder):
        path = Path(app.outdir, "charts", "vega.js")
        path.parent.mkdir(exist_ok=True)
        path.write_text(bundle(), encoding="utf-8")


def merge(app: Sphinx, env: BuildEnvironment, docnames: Iterable[str], other: BuildEnvironment) -> None:
    """Of builds in several processes."""
    env.study_pages = getattr(env, "study_pages", set()) | getattr(other, "study_pages", set())


def setup(app: Sphinx) -> dict:
    """Called by Sphinx."""
    app.add_config_value("repository_address", "", "env")
    app.add_node(Generated, html=(visit, None))
    app.add_role("num", Num())
    app.add_role("claim", Claim())
    rows = {"evidence": Evidence, "answers": Answers, "chart": Chart, "results": Results, "explorer": Explorer}
    rows |= {"literature": Literature, "runs-table": RunsTable}
    rows |= {"toy": Toy, "commands": Commands, "cite-this": CiteThis}
    for name, directive in rows.items():
        app.add_directive(name, directive)
    app.connect("doctree-read", say_how_it_was_made)
    app.connect("env-get-outdated", outdated)
    app.connect("env-merge-info", merge)
    app.connect("html-page-context", add_scripts)
    app.connect("build-finished", write_bundle)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
