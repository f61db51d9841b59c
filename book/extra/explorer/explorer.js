// The explorer of images: two arms side by side and their difference; a class or all, a seed, an iteration where pictures of several are kept.
for (const root of document.querySelectorAll(".explorer")) {
  const {classes, sets, first: left} = JSON.parse(root.querySelector(".explorer-data").textContent);
  const arms = [...new Set(sets.map((set) => set.arm))], seeds = [...new Set(sets.map((set) => set.seed))].sort((a, b) => a - b);
  const steps = [...new Set(sets.flatMap((set) => Object.keys(set.steps).map(Number)))].sort((a, b) => a - b);
  const first = Math.max(0, arms.indexOf(left));
  const options = (values, chosen) => values.map((value, i) => `<option value="${i}"${i === chosen ? " selected" : ""}>${value}</option>`).join("");
  root.innerHTML = `<div class="explorer-controls">
    <label>Left <select class="left">${options(arms, first)}</select></label>
    <label>Right <select class="right">${options(arms, Math.min(first + 1, arms.length - 1))}</select></label>
    <label>Seed <select class="seed">${options(seeds, 0)}</select></label>
    <label>Class <select class="class">${options(["all", ...classes], 0)}</select></label>
    ${steps.length ? `<label>Iteration <input type="range" min="0" max="${steps.length}" value="${steps.length}"> <output></output></label>` : ""}
    </div><div class="explorer-panes">${["left", "right", "difference"].map((pane) =>
    `<figure class="${pane}"><div class="explorer-images ${pane}"></div><figcaption></figcaption></figure>`).join("")}</div>`;
  const value = (name) => +root.querySelector(`select.${name}`).value;
  const image = (src, alt, one) => {
    const shown = Object.assign(new Image(), {src, alt, className: "pixels"});
    // One class is one column of the picture: the picture is as many times wider than its frame.
    shown.addEventListener("load", () =>
      root.querySelector(".explorer-panes").classList.toggle("wide", shown.naturalWidth > 3 * shown.naturalHeight && value("class") === 0));
    if (one >= 0) { shown.style.width = `${100 * classes.length}%`; shown.style.maxWidth = "none"; shown.style.marginLeft = `${-100 * one}%`; }
    return shown;
  };
  const show = () => {
    const seed = seeds[value("seed")], one = value("class") - 1, slider = root.querySelector("input");
    const step = slider && +slider.value < steps.length ? steps[+slider.value] : null;
    const found = ["left", "right"].map((side) => sets.find((set) => set.arm === arms[value(side)] && set.seed === seed));
    const sources = found.map((set) => set && (step === null ? set.src : set.steps[step] ?? set.src));
    if (slider) {
      const words = step === null ? "finished" : `${step}`;
      root.querySelector("output").textContent = words;
      slider.setAttribute("aria-valuetext", step === null ? "finished set" : `iteration ${step}`);
    }
    ["left", "right"].forEach((side, i) => {
      const frame = root.querySelector(`.explorer-images.${side}`), caption = root.querySelector(`figure.${side} figcaption`);
      const what = `${arms[value(side)]}, seed ${seed}`;
      const kept = step === null || (found[i] && found[i].steps[step]) ? "" : "; this iteration was not kept, the finished set is shown";
      frame.replaceChildren(...(found[i] ? [image(sources[i], `${what}: ${one >= 0 ? `images of class ${classes[one]}` : "a class a column"}`, one)] : []));
      caption.textContent = found[i] ? `${what}: ${found[i].accuracy} %${kept}` : `${what}: no such set is kept`;
    });
    const both = found.every(Boolean), frame = root.querySelector(".explorer-images.difference");
    frame.replaceChildren(...(both ? [image(sources[0], "", one), image(sources[1], "Difference of the two, twice as bright", one)] : []));
    root.querySelector("figure.difference figcaption").textContent = both ? "difference, twice as bright; black: equal" : "no difference to show";
  };
  root.addEventListener("input", show);
  show();
}
