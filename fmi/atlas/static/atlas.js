"use strict";

// ----- what is remembered -----

function remembered(name) {
  try { return localStorage.getItem(name); } catch (error) { return null; }
}

function remember(name, value) {
  try { localStorage.setItem(name, value); } catch (error) { /* not allowed: for this page alone */ }
}

// ----- light and dark -----

const themeButton = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : system.matches;
}

function nameTheme() {
  themeButton.textContent = isDark() ? "Light" : "Dark";
}

themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  remember("atlas-theme", document.documentElement.dataset.theme);
  nameTheme();
});
system.addEventListener("change", nameTheme);
nameTheme();

// ----- search: "relu3_2:17", "relu3_2", "17" -----

const MOST = 12;
const root = document.body.dataset.root;
const query = document.getElementById("query");
const list = document.getElementById("found");
const told = document.getElementById("told");

function has(ranges, number) {
  return ranges.some(([first, last]) => first <= number && number <= last);
}

function search(text) {
  const asked = text.trim().toLowerCase();
  if (!asked) return [];
  const found = [];
  const add = (name, folder, number) => found.push(number === null
    ? {title: name, address: `${root}${folder}/index.html`}
    : {title: `${name}:${number}`, address: `${root}${folder}/${number}.html`});
  const layers = ATLAS.layers;
  const match = /^(.*):\s*(\d*)$/.exec(asked);
  const name = match ? match[1].trim() : asked;
  const rank = ([layer]) => {
    const low = layer.toLowerCase();
    return low === name ? 0 : low.startsWith(name) ? 1 : low.includes(name) ? 2 : 3;
  };
  const near = layers.filter((layer) => rank(layer) < 3).sort((a, b) => rank(a) - rank(b));
  if (match && match[2]) {
    const number = Number(match[2]);
    for (const [layer, folder, ranges] of near) {
      if (has(ranges, number)) add(layer, folder, number);
    }
    return found;
  }
  if (/^\d+$/.test(asked)) {
    const number = Number(asked);
    const here = document.body.dataset.layer;
    const order = [...layers].sort((a, b) => (b[0] === here) - (a[0] === here));
    for (const [layer, folder, ranges] of order) {
      if (has(ranges, number)) add(layer, folder, number);
    }
  }
  for (const [layer, folder] of near) add(layer, folder, null);
  return found;
}

function showFound() {
  const found = search(query.value);
  list.replaceChildren(...found.slice(0, MOST).map((one) => {
    const link = document.createElement("a");
    link.href = one.address;
    link.textContent = one.title;
    const item = document.createElement("li");
    item.append(link);
    return item;
  }));
  const asked = query.value.trim();
  if (asked && !found.length) {
    const item = document.createElement("li");
    item.textContent = "Nothing is called so here.";
    list.append(item);
  }
  list.hidden = !asked;
  told.textContent = asked ? `${found.length} found` : "";
  return found;
}

query.addEventListener("input", showFound);
query.addEventListener("focus", showFound);
document.getElementById("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const found = showFound();
  if (found.length) location.href = found[0].address;
});
document.addEventListener("click", (event) => {
  if (!event.target.closest("#search")) list.hidden = true;
});
document.getElementById("search").addEventListener("keydown", (event) => {
  const links = [...list.querySelectorAll("a")];
  const place = links.indexOf(document.activeElement);
  if (event.key === "Escape") {
    list.hidden = true;
    query.blur();
  } else if (event.key === "ArrowDown" && place + 1 < links.length) {
    links[place + 1].focus();
    event.preventDefault();
  } else if (event.key === "ArrowUp" && place >= 0) {
    (links[place - 1] || query).focus();
    event.preventDefault();
  }
});

// ----- keys -----

const keys = document.getElementById("keys");
const help = document.getElementById("help");
const useKeys = document.getElementById("use-keys");

help.hidden = false;
help.addEventListener("click", () => keys.showModal());
useKeys.checked = remembered("atlas-keys") !== "off";
useKeys.addEventListener("change", () => remember("atlas-keys", useKeys.checked ? "on" : "off"));

function follow(relation) {
  const link = document.querySelector(`a[rel=${relation}]`);
  if (link) link.click();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (!useKeys.checked || keys.open) return;
  if (event.target.closest("input, select, textarea, pre, .scroll, #search")) return;
  switch (event.key) {
    case "ArrowLeft": follow("prev"); break;
    case "ArrowRight": follow("next"); break;
    case "ArrowUp":
      if (window.scrollY > 0) return;
      follow("up");
      break;
    case "u": follow("up"); break;
    case "/": query.focus(); query.select(); break;
    case "?": keys.showModal(); break;
    default: return;
  }
  event.preventDefault();
});

// ----- the grid of a layer -----

const grid = document.getElementById("grid");

if (grid) {
  const order = document.getElementById("order");
  const picture = document.getElementById("picture");
  const sorted = document.getElementById("sorted");
  const items = [...grid.children];

  const arrange = () => {
    const by = order.value;
    const value = (item) => (by in item.dataset ? Number(item.dataset[by]) : null);
    const rising = by === "filter" || by === "similarity";
    const number = (item) => Number(item.dataset.filter);
    items.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null) || number(a) - number(b);
      return (rising ? x - y : y - x) || number(a) - number(b);
    });
    grid.append(...items);
    for (const item of items) {
      const shown = rising || value(item) === null ? "" : Number(value(item).toPrecision(2));
      item.querySelector(".value").textContent = shown === "" ? "" : String(shown);
    }
    const without = items.filter((item) => value(item) === null).length;
    sorted.textContent = without ? `${without} without a value stand at the end.` : "";
    remember("atlas-order", by);
  };

  const choose = () => {
    const place = picture.selectedIndex;
    for (const item of items) {
      const state = item.dataset.states.split(",")[place];
      const there = state && state !== "missing";
      const image = item.querySelector("img");
      const number = item.dataset.filter;
      image.src = there ? `tiles/${picture.value}/${number}.jpg` : "../static/missing.svg";
      image.alt = `${there ? "Texture" : "No panel"} of filter ${number}`;
      const mark = item.querySelector(".state");
      if (mark) mark.remove();
      if (state !== "driven") {
        const label = document.createElement("span");
        label.className = "state";
        label.textContent = state || "missing";
        item.firstElementChild.append(label);
      }
    }
    remember("atlas-picture", picture.value);
  };

  const restore = (select, name) => {
    const before = remembered(name);
    if (before && [...select.options].some((option) => option.value === before)) select.value = before;
    return select.selectedIndex > 0;
  };

  document.getElementById("controls").hidden = false;
  order.addEventListener("change", arrange);
  if (restore(order, "atlas-order")) arrange();
  if (picture) {
    picture.addEventListener("change", choose);
    if (restore(picture, "atlas-picture")) choose();
  }
}
