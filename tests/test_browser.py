"""The built book in a real browser: what a reader can do, what nobody may be kept from, and what a page weighs."""

import re
from pathlib import Path

import pytest
import torch
from made import HTML, PAGES
from shown import toy

from ddlib.combine import weights_mgda
from ddlib.families import Step

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make env")
axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed: make env")
CHROMIUM = next(
    (p for p in map(Path, ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")) if p.is_file()),
    None,
)
pytestmark = [
    pytest.mark.skipif(not HTML.exists(), reason="the book is not built: run `make book`"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this system: apt-get install chromium"),
    pytest.mark.xdist_group("browser"),
]
AXE = Path(axe.__file__).with_name("axe.min.js")
FORMULAS = 2_200_000  # bytes of MathJax on top, where a page has formulas
DRAWN = """() => [...document.querySelectorAll(".chart-box")].every((box) => box.querySelector(".chart-live svg"))
  && [...document.querySelectorAll("div.math, span.math")].every((math) => math.querySelector("mjx-container"))"""
SCROLL = """async () => {
  for (let y = 0; y < document.body.scrollHeight; y += 600) {
    scrollTo(0, y);
    await new Promise((r) => setTimeout(r, 30));
  }
  scrollTo(0, 0);
}"""
FAULTS = """() => axe.run(document, {preload: false, resultTypes: ["violations"]}).then((found) => found.violations
  .filter((v) => ["serious", "critical"].includes(v.impact))
  .map((v) => v.id + ": " + v.nodes.slice(0, 3).map((n) => n.target.join(" ")).join(", ")))"""
# Boxes with words that are cut off: wider than they are shown, and without a way to scroll.
CUT = """() => {
  const blocks = document.querySelectorAll(".bd-article :is(table, pre, figure, div.math, .answers)");
  return [...blocks].filter((box) => {
  const scrolling = ".pst-scrollable-table-container, .text_html, .chart-live, .chart-still, div.math, pre";
  const inside = box.closest(scrolling) ?? box;
  const scrolls = ["auto", "scroll"].includes(getComputedStyle(inside).overflowX);
  const right = inside.getBoundingClientRect().right;
  const wide = box.scrollWidth > box.clientWidth + 1;
  return right > document.documentElement.clientWidth + 1 || (!scrolls && wide);
}).map((box) => box.outerHTML.slice(0, 80));
}"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def open_page(browser):
    """A function from the name of a page to the page, in a theme and a width; what it loaded and said hangs on it."""
    contexts = []

    def opened(name: str, theme: str = "light", width: int = 1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, **options)
        for key in ("mode", "theme"):
            context.add_init_script(f"try {{ localStorage.setItem('{key}', '{theme}'); }} catch {{}}")
        contexts.append(context)
        page = context.new_page()
        page.loaded, page.errors = [], []
        page.on("request", lambda request: page.loaded.append(request.url))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(f"file://{HTML}/{name}.html")
        page.wait_for_timeout(200)
        return page

    yield opened
    for context in contexts:
        context.close()


def scrolled(page):
    """The page, after a reader went through all of it."""
    page.evaluate(SCROLL)
    page.wait_for_function(DRAWN)
    return page


def weight(urls: list[str]) -> int:
    """Bytes of what a page loaded, pictures left out."""
    files = [Path(re.sub(r"[?#].*", "", url.removeprefix("file://"))) for url in urls if url.startswith("file://")]
    pictures = {".png", ".svg", ".jpg"}
    return sum(f.stat().st_size for f in files if f.is_file() and f.suffix not in pictures)


# --- every page -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shuts_nobody_out_is_cut_nowhere_and_loads_little(open_page, name):
    problems = []
    for theme in ("light", "dark"):
        page = scrolled(open_page(name, theme))
        problems += [f"from outside: {url}" for url in page.loaded if not url.startswith(("file:", "data:", "blob:"))]
        problems += [f"script: {error}" for error in page.errors]
        page.evaluate(AXE.read_text())
        problems += [f"axe, {theme}: {fault}" for fault in page.evaluate(FAULTS)]
    for width in (1280, 768, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(150)
        problems += [f"cut at {width}: {box}" for box in page.evaluate(CUT)]
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
            problems.append(f"{wide} pixels wide at {width}")
    problems += weighed(page) + read(page)
    assert problems == []


def weighed(page) -> list[str]:
    """Whether it is too heavy: MathJax and the scripts of charts come on top,."""
    formulas = any("tex-svg" in url for url in page.loaded)
    most, heavy = 1_500_000 + formulas * FORMULAS, weight(page.loaded)
    return [f"weighs {heavy}"] if heavy > most else []


def read(page) -> list[str]:
    """Headings that occur twice, pictures whose words are no description, and what search engines would miss."""
    found = []
    heads = page.eval_on_selector_all(".bd-article :is(h1, h2, h3)", "(all) => all.map((h) => h.textContent.trim())")
    found += [f"twice: {head}" for head in set(heads) if heads.count(head) > 1]
    texts = page.eval_on_selector_all(".bd-article img:not(.difference img)", "(all) => all.map((i) => i.alt)")
    found += [f"words of a picture: {text!r}" for text in texts if not text or re.search(r"/.*\.(png|svg)$", text)]
    if page.locator('meta[name="description"]').count() != 1:
        found.append("no description, or two")
    return found if page.locator('link[rel*="icon"]').count() else [*found, "no favicon"]


# --- what a reader can do ---------------------------------------------------------------------------------


def test_a_dot_tells_its_seed_and_its_record_on_hover(open_page):
    page = scrolled(open_page("ablation_1"))
    dots = page.locator('.chart-box:has(img[src*="strips"]) .mark-symbol path')
    dots.first.wait_for(state="attached")
    dots.nth(1).hover(force=True)
    tip = page.locator(".chart-tip")
    tip.wait_for(state="visible")
    assert {"seed", "accuracy", "run"} <= set(tip.inner_text().split())
    dots.nth(1).click(force=True)
    page.wait_for_url("**/records/*.json", timeout=5000)


def test_a_chart_keeps_its_slider_when_the_page_turns_dark(open_page):
    for name in ("ablation_1", "ablation_2"):  # of two sets alone a slider has nothing to choose
        page = scrolled(open_page(name))
        box = page.locator('.chart-box:has(img[src*="growing"])')
        slider = box.locator("input[type=range]")
        if slider.count() and int(slider.get_attribute("max")) > 2:
            break
    slider.scroll_into_view_if_needed()
    before = box.locator(".chart-live svg").text_content()
    slider.fill("2")
    page.wait_for_timeout(300)
    after = box.locator(".chart-live svg").text_content()
    assert before != after
    assert "n\u00a0=\u00a02" in after
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(800)
    assert box.locator("input[type=range]").input_value() == "2"
    assert "n\u00a0=\u00a02" in box.locator(".chart-live svg").text_content()


def test_costs_are_updates_passes_or_seconds(open_page):
    page = scrolled(open_page("ablation_2"))
    box = page.locator('.chart-box:has(img[src*="costs"])')
    ends = []
    for choice in ("steps", "passes", "seconds"):
        box.locator(f'input[type=radio][value="{choice}"]').check()
        page.wait_for_timeout(200)
        bars = box.locator(".chart-live .mark-rect path")
        ends.append(" ".join(bars.nth(i).get_attribute("d") for i in range(bars.count())))
    assert len(set(ends)) == 3, "one bar alone may be the longest twice"


def test_without_a_script_every_chart_is_a_picture(open_page):
    page = open_page("ablation_1", java_script_enabled=False)
    stills = page.locator(".chart-still img")
    assert stills.count() >= 3
    assert all(stills.nth(i).is_visible() for i in range(stills.count()))
    assert page.locator(".explorer-still img").is_visible()


def test_every_figure_has_its_data_and_its_picture(open_page):
    page = open_page("ablation_1")
    links = page.eval_on_selector_all(".chart .files a", "(all) => all.map((a) => a.getAttribute('href'))")
    assert len(links) == 2 * page.locator(".chart-box").count()
    assert all((HTML / link).stat().st_size > 50 for link in links)


def test_the_explorer_shows_two_arms_and_their_difference(open_page):
    page = scrolled(open_page("ablation_1"))
    explorer = page.locator(".explorer")
    sources = ".explorer-images.left img, .explorer-images.right img"
    first = explorer.locator(sources).evaluate_all("(all) => all.map((i) => i.src)")
    assert len(set(first)) == 2
    explorer.locator("select.right").select_option(index=0)
    explorer.locator("select.class").select_option(index=3)
    name = explorer.locator("select.class option").nth(3).text_content()
    assert explorer.locator(".explorer-images.difference img").count() == 2
    assert explorer.locator(".explorer-images.left img").get_attribute("alt").endswith(name)
    assert explorer.locator(sources).evaluate_all("(all) => all.map((i) => i.src)") != first


def test_the_toy_moves_by_keys_and_computes_what_ddlib_computes(open_page):
    page = scrolled(open_page("ablation_2"))
    handle = page.locator('.toy [role="slider"]').first
    before = page.locator(".toy-numbers").inner_text()
    handle.focus()
    for _ in range(5):
        page.keyboard.press("ArrowUp")
    assert page.locator(".toy-numbers").inner_text() != before
    for gradients in (toy.START, ((1.0, 0.2), (-0.9, 0.5), (0.1, 2.0)), ((3.0, 0.0), (0.0, 1.0), (1.0, 1.0))):
        seen = page.evaluate(
            "(g) => Object.fromEntries(Object.entries(toyRules).map(([n, r]) => [n, r(g)]))", gradients
        )
        for name, rule in toy.RULES.items():
            assert seen[name] == pytest.approx(rule(list(gradients)), abs=1e-6)
        jacobian = torch.tensor(gradients, dtype=torch.float64)
        ours = weights_mgda(jacobian @ jacobian.T, Step(0, 0)) @ jacobian
        assert seen["MGDA"] == pytest.approx(ours.tolist(), abs=0.02)
        assert seen["mean"] == pytest.approx(jacobian.mean(0).tolist())


def test_one_switch_opens_all_code(open_page):
    page = open_page("executed/03_compare")
    switch = page.locator(".code-switch")
    assert page.locator("details.hide[open]").count() == 0
    switch.click()
    assert page.locator("details.hide[open]").count() == page.locator("details.hide").count() > 5
    assert switch.inner_text() == "Hide all code"


def test_a_term_is_explained_where_it_stands(open_page):
    page = open_page("ablation_1")
    term = page.locator("a.glossary-link").first
    assert "frozen" in term.get_attribute("data-tip")
    term.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    assert "frozen" in term.evaluate("(e) => getComputedStyle(e, '::after').content")


def test_search_finds_the_chapter(open_page):
    page = open_page("search")
    page.goto(f"file://{HTML}/search.html?q=contrastive")
    page.locator("#search-results li a").first.wait_for()
    assert page.locator('#search-results a[href*="ablation_1"]').count() >= 1


def test_focus_is_seen_in_the_sidebar(open_page):
    page = open_page("index")
    link = page.locator(".bd-sidebar-primary nav a").nth(2)
    link.focus()
    page.keyboard.press("Tab")
    width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert float(width.removesuffix("px")) >= 2


def test_hidden_answers_open(open_page):
    page = open_page("ablation_1")
    answer = page.locator("details.answer-of-exercise").first
    assert not answer.evaluate("(d) => d.open")
    answer.locator("summary").click()
    assert answer.evaluate("(d) => d.open")
