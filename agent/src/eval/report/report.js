"use strict";
// Shows one case at a time, filters the list, and follows the pointer with the time. Without it the page shows everything.
(() => {
  const $ = (id) => document.getElementById(id);
  const items = [...document.querySelectorAll("#list li")];
  const panels = [...document.querySelectorAll("#panels figure")];
  let shown = items;
  let current = null;

  const show = (item, focus) => {
    if (current) current.removeAttribute("aria-current");
    current = item;
    panels.forEach((panel) => { panel.hidden = !item || panel.dataset.panel !== item.dataset.panel; });
    document.querySelectorAll("rect.current").forEach((bar) => bar.classList.remove("current"));
    $("place").textContent = item ? `${shown.indexOf(item) + 1} of ${shown.length}` : "none";
    if (!item) return;
    item.setAttribute("aria-current", "true");
    if (focus) item.scrollIntoView({ block: "nearest" });
    document.querySelectorAll(`rect[data-case="${item.dataset.case}"]`).forEach((bar) => bar.classList.add("current"));
    if (focus) history.replaceState(null, "", `#case-${item.dataset.case}`);
  };

  const step = (by) => {
    if (!shown.length) return;
    const at = shown.indexOf(current) + by;
    show(shown[Math.min(Math.max(at, 0), shown.length - 1)], true);
  };

  const filter = () => {
    const fits = (item, name) => !$(name).value || item.dataset[name] === $(name).value;
    shown = items.filter((item) => fits(item, "label") && fits(item, "kind"));
    items.forEach((item) => { item.hidden = !shown.includes(item); });
    show(shown.includes(current) ? current : shown[0] || null, false);
  };

  items.forEach((item) => item.addEventListener("click", () => show(item, true)));
  ["label", "kind"].forEach((name) => $(name).addEventListener("change", filter));
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  document.addEventListener("keydown", (event) => {
    if (event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    step(by);
  });

  panels.forEach((panel) => {
    const svg = panel.querySelector("svg");
    const [line, text] = svg.querySelectorAll(".cursor");
    const { from, to, left, right } = svg.dataset;
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = Math.min(Math.max(((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width, +left), +right);
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      text.setAttribute("x", x);
      text.textContent = `${(+from + ((x - left) / (right - left)) * (to - from)).toFixed(2)} s`;
    });
  });

  const wanted = items[Number((location.hash.match(/^#case-(\d+)$/) || [])[1])];
  filter();
  if (wanted) show(wanted, true);
})();
