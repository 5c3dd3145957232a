"use strict";
// Before anything is drawn: the theme that the reader chose before, or else the system's.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("stability-theme");
  } catch {
    // A browser may refuse storage to a file; the system's theme is taken then.
  }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = chosen === "dark" || chosen === "light" ? chosen : dark ? "dark" : "light";
})();
