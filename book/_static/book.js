// One switch for all code of a page; definitions of terms on hover and focus; wide boxes say that they scroll.
document.addEventListener("DOMContentLoaded", () => {
  const folds = [...document.querySelectorAll(".bd-article div.cell details.hide")];
  if (folds.length) {
    const button = Object.assign(document.createElement("button"), {type: "button", className: "code-switch"});
    const open = () => folds.every((fold) => fold.open);
    const label = () => (button.textContent = open() ? "Hide all code" : "Show all code");
    button.addEventListener("click", () => {
      const now = !open();
      folds.forEach((fold) => (fold.open = now));
      label();
    });
    folds.forEach((fold) => fold.addEventListener("toggle", label));
    label();
    document.querySelector(".bd-article h1")?.after(button);
  }
  for (const link of document.querySelectorAll("a.glossary-link[title]")) {
    link.dataset.tip = link.title;
    link.setAttribute("aria-description", link.title);
    link.removeAttribute("title");
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.activeElement?.closest("[data-tip]")?.blur();
  });
  const kinds = {"div.math": "Formula", pre: "Code", ".pst-scrollable-table-container": "Table", ".cell_output .text_html": "Table"};
  const boxes = () => document.querySelectorAll(Object.keys(kinds).map((kind) => `.bd-article ${kind}`).join());
  const mark = () => boxes().forEach((box) => {
    const wide = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle("scrolls", wide);
    const kind = Object.entries(kinds).find(([selector]) => box.matches(selector))[1];
    for (const [name, value] of Object.entries({tabindex: 0, role: "region", "aria-label": `${kind}, scrolls sideways`})) {
      if (wide) box.setAttribute(name, value);
      else box.removeAttribute(name);
    }
  });
  mark();
  addEventListener("resize", mark);
  addEventListener("load", mark);
});

{ // paper is light, and nobody can open an answer on it
  let theme, closed;
  addEventListener("beforeprint", () => {
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    closed = [...document.querySelectorAll(".bd-article details:not(.hide, [open])")];
    closed.forEach((details) => (details.open = true));
  });
  addEventListener("afterprint", () => {
    document.documentElement.dataset.theme = theme;
    closed.forEach((details) => (details.open = false));
  });
}
