// Charts: the picture stays until the reader comes near it; then one script for all of them draws the chart in its place.
(() => {
  const base = new URL(".", document.currentScript.src).href;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  let loading;
  const load = () => (loading ??= new Promise((done, fail) => {
    document.head.append(Object.assign(document.createElement("script"), {src: `${base}vega.js`, onload: done, onerror: fail}));
  }));
  const config = () => {
    const text = css("--pst-color-text-base"), line = css("--pst-color-border");
    const axis = {labelColor: text, titleColor: text, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 12};
    return {background: "transparent", font: "system-ui, sans-serif", axis, view: {stroke: null}};
  };
  // Ink of the picture, on paper; on a page it is that of the page.
  const inked = (part, ink) => Array.isArray(part) ? part.map((p) => inked(p, ink)) : part && typeof part === "object"
    ? Object.fromEntries(Object.entries(part).map(([key, value]) => [key, value === "#262626" || value === "#666666" ? ink : inked(value, ink)])) : part;
  const draw = (box) => (box.drawing = (box.drawing ?? Promise.resolve()).then(() => drawNow(box)));
  async function drawNow(box) {
    await load();
    const {config: _, ...spec} = JSON.parse(box.querySelector(".chart-spec").textContent);
    const still = box.querySelector(".chart-still");
    const live = box.querySelector(".chart-live") ?? Object.assign(document.createElement("div"), {className: "chart-live"});
    const state = box.view ? Object.fromEntries((spec.params ?? []).filter((p) => p.bind).map((p) => [p.name, box.view.signal(p.name)])) : {};
    box.view?.finalize();
    box.append(live);
    still.hidden = true;
    const theme = document.documentElement.dataset.theme === "dark" ? "dark" : "light";
    const result = await vegaEmbed(live, inked(spec, css("--pst-color-text-base")), {actions: false, renderer: "svg", config: config(), tooltip: {theme}});
    for (const [name, value] of Object.entries(state)) result.view.signal(name, value);
    await result.view.runAsync();
    box.view = result.view;
    live.querySelector("svg")?.setAttribute("aria-label", still.querySelector("img").alt);
  }
  const near = new IntersectionObserver((entries) => {
    for (const {isIntersecting, target} of entries) {
      if (!isIntersecting || target.dataset.live) continue;
      near.unobserve(target);
      target.dataset.live = "yes";
      draw(target).catch((error) => { target.querySelector(".chart-still").hidden = false; console.error(error); });
    }
  }, {rootMargin: "300px"});
  // Vega measures its box on resizes of the window alone, and then too early.
  const sized = new ResizeObserver((entries) => {
    for (const {target, contentRect} of entries) {
      if (target.dataset.wide !== `${Math.round(contentRect.width)}`) {
        target.dataset.wide = Math.round(contentRect.width);
        target.view?.resize().signal("width", target.clientWidth - 12).runAsync();
      }
    }
  });
  document.querySelectorAll(".chart-box").forEach((box) => {
    near.observe(box);
    sized.observe(box);
  });
  new MutationObserver(() => document.querySelectorAll(".chart-box[data-live]").forEach((box) => draw(box)))
    .observe(document.documentElement, {attributes: true, attributeFilter: ["data-theme"]});
})();
