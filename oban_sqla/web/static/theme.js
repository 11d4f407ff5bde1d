// Before the first paint, so that a page does not flash in the other theme.
"use strict";
try {
  const chosen = localStorage.getItem("oban-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* storage may be forbidden */ }
