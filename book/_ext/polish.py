"""Sphinx extension: what every page has besides its text, and repairs of the theme that no setting offers.

Version, date, commit and "cite this" in the footer; a description for search engines; MathJax only on pages with a
formula; definitions of the glossary's terms where they are used; and after the build ``REPAIRS``: weight, names of
controls, landmarks, roles; icons that no page shows are left out.
"""

import os
import re
import time
from collections.abc import Callable
from html import escape
from importlib.metadata import version
from pathlib import Path

from docutils import nodes
from history import git
from sphinx.application import Sphinx
from sphinx.config import Config

DESCRIPTION = 160  # characters that search engines show


def _hidden(found: re.Match) -> str:
    return found[1] + re.sub(r' title="[^"]*"', ' aria-hidden="true"', found[2]) + "</button>"


# What each takes away must be on no page afterwards (tests/test_book.py).
REPAIRS: list[tuple[str, str | Callable[[re.Match], str]]] = [
    # 1.5 MB of script that swaps icons for SVG; the style sheet has the same icons as a font
    (r'<script defer(?:="")? src="[^"]*fontawesome\.js[^"]*"></script>\n?', ""),
    # the name of a control must hold its visible text
    (r' aria-label="Toggle hidden content"', ""),
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
    (r'(<button class="btn btn-sm nav-link pst-navbar-icon theme-switch-button[^>]*?>\s*)(<i .*?)</button>', _hidden),
    (
        r'<summary><span class="toctree-toggle" role="presentation">',
        '<summary aria-label="Pages below"><span class="toctree-toggle">',
    ),
    # logo and search lie outside of every landmark
    (
        r'<div id="pst-primary-sidebar" class="bd-sidebar-primary bd-sidebar">',
        '<div id="pst-primary-sidebar" class="bd-sidebar-primary bd-sidebar" role="complementary"'
        ' aria-label="Contents of the book">',
    ),
    # a list may hold list items only
    (r'role="doc-biblioentry"', 'role="listitem"'),
    (r'role="doc-backlink" ', ""),
]
# The index of the search, 0.2 MB: a search opens a page of its own, and that alone needs it.
SEARCHED, SEARCH = "search.html", r'<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>\n?'
# Style sheets and scripts that a page needs only if it has what they are for.
FOR = {
    r"<link [^>]*/mystnb\.[^>]*>\n?": r'class="[^"]*\bcell\b',
    r"<link [^>]*/sphinx-design\.[^>]*>\n?": r'class="[^"]*\bsd-',
    r"<link [^>]*/sphinx-thebe\.[^>]*>\n?": r'class="[^"]*\bthebe',
    r"<script [^>]*/design-tabs\.js[^>]*></script>\n?": r'class="[^"]*\bsd-tab',
}


# The rules that name icons of the theme's font, 0.09 MB; the book shows a dozen of them.
ICONS = re.compile(r"(?:\.fa-[\w-]+:before,?)+\{content:[^}]*\}")
ICON = re.compile(r"\bfa-[\w-]+")


def say_where_from(app: Sphinx, config: Config) -> None:
    """Version, date and commit for the footer; the date is that of the commit, so equal sources give equal pages."""
    committed, commit = git(app.srcdir, "log", "-1", "--format=%ct"), git(app.srcdir, "rev-parse", "--short=9", "HEAD")
    stamp = os.environ.get("SOURCE_DATE_EPOCH") or next(iter(committed), time.time())
    config.html_context = {
        **(config.html_context or {}),
        "build_version": version("ddlib-ptm"),
        "build_date": time.strftime("%Y-%m-%d", time.gmtime(int(stamp))),
        "build_commit": next(iter(commit), "none"),
    }
    items = ["author.html", "copyright.html", "origin.html"]
    config.html_theme_options = {**config.html_theme_options, "footer_content_items": items}


def describe(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Title and first words, for search engines and previews."""
    if doctree is None:
        return
    title, text = re.sub("<[^>]+>", "", context.get("title", "")), first_words(doctree)
    found = {"og:title": title, "og:type": "article", "og:description": text}
    tags = [f'<meta property="{name}" content="{escape(value)}" />' for name, value in found.items() if value]
    if 'name="description"' not in context.get("metatags", "") and text:
        tags.append(f'<meta name="description" content="{escape(text)}" />')
    context["metatags"] = "\n".join([context.get("metatags", ""), *tags, ""])


def first_words(doctree: nodes.document) -> str:
    """Those of the first paragraph with some words in it."""
    paragraphs = (re.sub(r"\s+", " ", p.astext()).strip() for p in doctree.findall(nodes.paragraph))
    text = next((text for text in paragraphs if len(text) > 40), "")
    return text if len(text) <= DESCRIPTION else f"{text[: DESCRIPTION - 1].rsplit(' ', 1)[0]}…"


def only_with_formulas(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    """Leave MathJax (2 MB) out of pages without a formula: Sphinx loads it on those above one in the contents too."""
    if not re.search(r'class="[^"]*\bmath\b', context.get("body", "")):
        context["script_files"] = [script for script in context["script_files"] if not _mathjax(script)]


def _mathjax(script: object) -> bool:
    body = getattr(script, "attributes", {}).get("body") or ""
    return "mathjax/" in str(getattr(script, "filename", script)) or "window.MathJax" in body


def define_terms(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """A term of the glossary carries its definition as a title, which the page's script shows on hover and focus."""
    texts = None
    for link in doctree.findall(nodes.reference):
        anchor = link.get("refid") or link.get("refuri", "").partition("#")[2]
        if anchor.startswith("term-"):
            texts = definitions(app) if texts is None else texts
            if anchor in texts:
                link["reftitle"] = texts[anchor]
                link["classes"].append("glossary-link")


def definitions(app: Sphinx) -> dict[str, str]:
    """All terms of all glossaries by their anchors."""
    pages = {page for _, _, kind, page, _, _ in app.env.get_domain("std").get_objects() if kind == "term"}
    return {
        anchor: " ".join(" ".join(text.astext() for text in item.findall(nodes.definition)).split())
        for page in pages
        for item in app.env.get_doctree(page).findall(nodes.definition_list_item)
        for term in item.findall(nodes.term)
        for anchor in term["ids"]
    }


def repair(app: Sphinx, error: Exception | None) -> None:
    """Apply ``REPAIRS`` to all pages, and leave style sheets and scripts to those that need them."""
    if error or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        old = text = path.read_text(encoding="utf-8")
        for pattern, new in REPAIRS:
            text = re.sub(pattern, new, text, flags=re.DOTALL)
        for pattern, used in FOR.items():
            text = text if re.search(used, text) else re.sub(pattern, "", text)
        if path.name != SEARCHED:
            text = re.sub(SEARCH, "", text)
        if text != old:
            path.write_text(text, encoding="utf-8")
    drop_icons(Path(app.outdir))


def drop_icons(pages: Path) -> None:
    """Leave in the theme's style sheet the icons that a page or a script names."""
    scripts = [path for path in pages.glob("_static/**/*.js") if path.stem != "fontawesome"]
    files = [*pages.rglob("*.html"), *scripts]
    named = {icon for path in files for icon in ICON.findall(path.read_text(encoding="utf-8"))}
    for sheet in pages.glob("_static/styles/pydata-sphinx-theme*.css"):
        text = sheet.read_text(encoding="utf-8")
        sheet.write_text(ICONS.sub(lambda rule: rule[0] if named & {*ICON.findall(rule[0])} else "", text), "utf-8")


def setup(app: Sphinx) -> dict:
    """Called by Sphinx."""
    app.connect("config-inited", say_where_from)
    app.connect("doctree-resolved", define_terms)
    app.connect("html-page-context", describe)
    app.connect("html-page-context", only_with_formulas, priority=900)
    app.connect("build-finished", repair)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
