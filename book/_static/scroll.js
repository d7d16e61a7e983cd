// What is wider than its place scrolls: then the keyboard must reach it, and custom.css says that there is more.
// Which of them do depends on the screen, and on formulas that MathJax has yet to set.
window.addEventListener("load", async () => {
  const wide = document.querySelectorAll("article :is(.ew-figure:not(.ew-dial), .ew-scroll, .pst-scrollable-table-container, div.math)");
  const look = (box) => {
    const scrolls = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle("ew-scrolls", scrolls);
    if (!scrolls) return box.removeAttribute("tabindex");
    box.tabIndex = 0;
    if (box.matches("div.math")) {
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", "formula");
    }
  };
  // The theme's switches that open a chapter have no name.
  document.querySelectorAll("summary:has(> .toctree-toggle)").forEach((e) => e.setAttribute("aria-label", "Pages of this chapter"));
  const watch = new ResizeObserver((seen) => seen.forEach((entry) => look(entry.target)));
  wide.forEach((box) => watch.observe(box));
  await window.MathJax?.startup?.promise;
  wide.forEach(look);
});
