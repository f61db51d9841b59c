// Charts: the picture stays until the reader comes near it; then one script for all of them draws the chart in its place.
(() => {
  const base = new URL(".", document.currentScript.src).href;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  let loading;
  const load = () => (loading ??= new Promise((done, fail) => {
    document.head.append(Object.assign(document.createElement("script"), {src: `${base}vega.js`, onload: done, onerror: () => { loading = undefined; fail(new Error("vega.js")); }}));
  }));
  const config = () => {
    const text = css("--pst-color-text-base"), line = css("--pst-color-border");
    const axis = {labelColor: text, titleColor: text, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 12};
    return {background: "transparent", font: "system-ui, sans-serif", axis, view: {stroke: null}};
  };
  // Ink of the picture, on paper; on a page it is that of the page.
  const inked = (part, ink) => Array.isArray(part) ? part.map((p) => inked(p, ink)) : part && typeof part === "object"
    ? Object.fromEntries(Object.entries(part).map(([key, value]) => [key, value === "#262626" || value === "#666666" ? ink : inked(value, ink)])) : part;
  // What a mark stands for, beside the pointer: a row for each of its fields, and its picture.
  const tip = Object.assign(document.createElement("div"), {className: "chart-tip", hidden: true});
  document.body.append(tip);
  const tell = (event, value) => {
    tip.hidden = !value || typeof value !== "object";
    if (tip.hidden) return;
    tip.replaceChildren(...Object.entries(value).filter(([, content]) => content !== "null").map(([name, content]) => {
      const row = document.createElement("div");
      if (name === "image") row.append(Object.assign(document.createElement("img"), {src: content, alt: ""}));
      else row.append(Object.assign(document.createElement("b"), {textContent: name}), ` ${content}`);
      return row;
    }));
    const {width, height} = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - width - 4))}px`;
    tip.style.top = `${Math.max(4, event.clientY + 12 + height < innerHeight ? event.clientY + 12 : event.clientY - height - 12)}px`;
  };
  const draw = (box) => (box.drawing = (box.drawing ?? Promise.resolve()).then(() => drawNow(box)).catch((error) => {
    box.querySelector(".chart-still").hidden = false;
    console.error(error);
  }));
  async function drawNow(box) {
    await load();
    const spec = JSON.parse(box.querySelector(".chart-spec").textContent);
    const still = box.querySelector(".chart-still");
    const live = box.querySelector(".chart-live") ?? Object.assign(document.createElement("div"), {className: "chart-live"});
    const bound = (spec.signals ?? []).filter((signal) => signal.bind);
    const state = box.view ? bound.map(({name}) => [name, box.view.signal(name)]) : [];
    box.view?.finalize();
    box.append(live);
    still.hidden = true;
    const parsed = vega.parse(inked(spec, css("--pst-color-text-base")), config());
    const view = new vega.View(parsed, {renderer: "svg", container: live, hover: true, tooltip: (_, event, item, value) => tell(event, value)});
    for (const [name, value] of state) view.signal(name, value);
    box.view = await view.runAsync();
    live.querySelector("svg")?.setAttribute("aria-label", still.querySelector("img").alt);
  }
  const near = new IntersectionObserver((entries) => {
    for (const {isIntersecting, target} of entries) {
      if (!isIntersecting || target.dataset.live) continue;
      near.unobserve(target);
      target.dataset.live = "yes";
      draw(target);
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
