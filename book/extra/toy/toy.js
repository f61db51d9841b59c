// Three gradients to move, by mouse, finger or arrow keys; mean, PCGrad and MGDA follow. The rules are those of book/_ext/shown/toy.py.
(() => {
  const size = 320, height = 320, unit = 40;
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1], norm = (a) => Math.sqrt(dot(a, a));
  const plus = (a, b, w = 1) => [a[0] + w * b[0], a[1] + w * b[1]], times = (w, a) => [w * a[0], w * a[1]];
  const mean = (g) => times(1 / g.length, g.reduce((a, b) => plus(a, b)));
  const pcgrad = (g) => mean(g.map((own, i) => g.reduce((now, other, j) =>
    j !== i && dot(now, other) < 0 ? plus(now, other, -dot(now, other) / dot(other, other)) : now, own)));
  const leastNorm = (g) => {
    const edges = [[g[0], g[1]], [g[1], g[2]], [g[2], g[0]]];
    const signs = edges.map(([p, q]) => Math.sign(p[0] * q[1] - p[1] * q[0]));
    if (signs.every((s) => s > 0) || signs.every((s) => s < 0)) return [0, 0];
    return edges.map(([p, q]) => {
      const edge = plus(q, p, -1), length = dot(edge, edge);
      return plus(p, edge, length ? Math.min(1, Math.max(0, -dot(p, edge) / length)) : 0);
    }).reduce((a, b) => (norm(b) < norm(a) ? b : a));
  };
  const mgda = (g) => {
    const least = leastNorm(g), usual = (norm(g[0]) + norm(g[1]) + norm(g[2])) / 3;
    return norm(least) > 1e-3 * usual ? times(usual / norm(least), least) : [0, 0];
  };
  const rules = {mean, PCGrad: pcgrad, MGDA: mgda};
  window.toyRules = rules;
  for (const box of document.querySelectorAll(".toy")) {
    const start = JSON.parse(box.dataset.start);
    let gradients = start.map((g) => [...g]);
    box.innerHTML = `<p class="toy-controls"><button type="button">Start again</button></p>
      <svg viewBox="0 0 ${size} ${height}" role="group" aria-label="Three gradients to move, and what three rules make of them">
      <line x1="0" x2="${size}" y1="160" y2="160" stroke="currentColor" opacity=".2"/><line y1="0" y2="${height}" x1="160" x2="160" stroke="currentColor" opacity=".2"/>
      ${Object.keys(rules).map((name) => `<g class="rule ${name}"><line x1="160" y1="160" stroke-width="4"/><text font-size="13" font-weight="600">${name}</text></g>`).join("")}
      ${gradients.map((_, i) => `<g role="slider" tabindex="0" aria-label="Gradient ${i + 1}" aria-valuemin="-180" aria-valuemax="180"><line x1="160" y1="160" stroke="currentColor" stroke-width="2"/><circle r="9" fill="currentColor" fill-opacity=".25" stroke="currentColor"/><text font-size="13" fill="currentColor">g${i + 1}</text></g>`).join("")}
      </svg><p class="toy-numbers"></p>`;
    const svg = box.querySelector("svg"), handles = [...box.querySelectorAll("[role=slider]")];
    const place = (group, [x, y]) => {
      const px = 160 + unit * x, py = 160 - unit * y, line = group.querySelector("line"), text = group.querySelector("text");
      line.setAttribute("x2", px); line.setAttribute("y2", py);
      text.setAttribute("x", Math.min(px + 8, size - 50)); text.setAttribute("y", Math.max(py - 8, 14));
      const circle = group.querySelector("circle");
      if (circle) { circle.setAttribute("cx", px); circle.setAttribute("cy", py); }
    };
    const show = () => {
      handles.forEach((handle, i) => {
        const g = gradients[i], degrees = Math.round((180 * Math.atan2(g[1], g[0])) / Math.PI);
        place(handle, g);
        handle.setAttribute("aria-valuenow", degrees);
        handle.setAttribute("aria-valuetext", `${degrees} degrees, length ${norm(g).toFixed(1)}`);
      });
      // A name that would lie on another goes up, or on the other side of it where the picture ends.
      const at = (group) => ["x", "y"].map((name) => +group.querySelector("text").getAttribute(name));
      const named = handles.map(at);
      for (const [name, rule] of Object.entries(rules)) {
        const group = box.querySelector(`.rule.${name}`);
        place(group, rule(gradients));
        let [x, y] = at(group), step = -15;
        while (named.some(([otherX, otherY]) => Math.abs(otherX - x) < 56 && Math.abs(otherY - y) < 14)) {
          if (y + step < 14) step = 15;
          y += step;
        }
        group.querySelector("text").setAttribute("y", y);
        named.push([x, y]);
      }
      const cosines = [[0, 1], [0, 2], [1, 2]].map(([i, j]) =>
        `g${i + 1}, g${j + 1}: ${(dot(gradients[i], gradients[j]) / (norm(gradients[i]) * norm(gradients[j]) || 1)).toFixed(2)}`);
      box.querySelector(".toy-numbers").textContent = `Cosines: ${cosines.join("; ")}. Lengths of the results: ` +
        Object.entries(rules).map(([name, rule]) => `${name} ${norm(rule(gradients)).toFixed(2)}`).join(", ") + ".";
    };
    const move = (i, to) => { gradients[i] = to.map((v) => Math.min(3.8, Math.max(-3.8, v))); show(); };
    handles.forEach((handle, i) => {
      handle.addEventListener("pointerdown", (event) => { handle.setPointerCapture(event.pointerId); handle.focus(); event.preventDefault(); });
      handle.addEventListener("pointermove", (event) => {
        if (!handle.hasPointerCapture(event.pointerId)) return;
        const frame = svg.getBoundingClientRect(), scale = size / frame.width;
        move(i, [((event.clientX - frame.left) * scale - 160) / unit, (160 - (event.clientY - frame.top) * scale) / unit]);
      });
      handle.addEventListener("keydown", (event) => {
        const step = {ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1]}[event.key];
        if (step) { event.preventDefault(); move(i, plus(gradients[i], step)); }
      });
    });
    box.querySelector("button").addEventListener("click", () => { gradients = start.map((g) => [...g]); show(); });
    show();
  }
})();
