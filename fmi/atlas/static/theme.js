"use strict";
// Before the page is painted: the chosen theme.
try {
  const theme = localStorage.getItem("atlas-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch (error) { /* storage is not allowed: the system's theme holds */ }
