"use strict";
// All text of images goes through textContent: nothing here makes markup of it.
const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const CHANGES = {added: "var(--added)", removed: "var(--removed)", changed: "var(--changed)"};
const MOST_TILES = 4000;
const SHOWN_ROWS = 25;

function el(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
  let unit = 0;
  while (unit < units.length - 1 && bytes >= (unit ? 999.95 : 1000)) { bytes /= 1000; unit += 1; }
  return `${unit ? bytes.toFixed(1) : bytes} ${units[unit]}`;
}
const count = (number) => number.toLocaleString("en");
const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
const share = (part, whole) => whole ? `${(100 * part / whole).toFixed(1)}%` : "0.0%";
const hue = (kind) => typeof kind === "number" ? String(Math.round((212 + kind * 137.508) % 360)) : CHANGES[kind] || "0";

// A table whose columns sort: {title, value, cell, number, className, first}.
function table(columns, rows, options) {
  const {sorted = null, descending = true, filter = false, label, all = rows.length} = options;
  const body = el("tbody");
  const more = el("p", {className: "more"});
  const heads = columns.map((column, at) => el("th", {scope: "col", className: classes(column)},
    el("button", {type: "button", onclick: () => sort(at)}, column.title)));
  let key = sorted, down = descending, text = "", limit = SHOWN_ROWS;
  function classes(column) { return `${column.number ? "number " : ""}${column.className || ""}`; }
  function sort(at) {
    down = key === at ? !down : Boolean(columns[at].number);
    key = at;
    show();
  }
  function show() {
    const kept = rows.filter((row) => !text || columns.some((column) => String(column.value(row)).toLowerCase().includes(text)));
    if (key !== null) {
      const value = columns[key].value;
      const order = columns[key].number ? (a, b) => value(a) - value(b) : (a, b) => value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0;
      kept.sort((a, b) => down ? order(b, a) : order(a, b));
    }
    heads.forEach((head, at) => head.setAttribute("aria-sort", at !== key ? "none" : down ? "descending" : "ascending"));
    body.replaceChildren(...kept.slice(0, limit).map((row) => el("tr", {}, ...columns.map((column) => {
      const shown = column.cell ? column.cell(row) : String(column.value(row));
      return el("td", {className: classes(column)}, shown);
    }))));
    more.replaceChildren();
    if (kept.length > limit) {
      more.append(`${count(limit)} of ${count(kept.length)} rows. `,
        el("button", {type: "button", onclick: () => { limit = Infinity; show(); }}, "Show all"));
    } else if (all > rows.length) more.append(`The ${count(rows.length)} largest of ${count(all)}.`);
  }
  show();
  const search = filter && rows.length > 8 ? el("input", {
    type: "search", placeholder: "Filter", "aria-label": `Filter ${label}`,
    oninput: (event) => { text = event.target.value.toLowerCase(); show(); },
  }) : null;
  return [search, el("div", {className: "scroll"}, el("table", {"aria-label": label}, el("thead", {}, el("tr", {}, ...heads)), body)), more];
}

const bytes = (value) => el("span", {className: value ? "" : "zero"}, size(value));
const path = (value) => el("span", {className: "path"}, value);
const command = (value) => el("span", {className: "command"}, value || "–");
const swatch = (kind) => el("span", {className: "key colour", style: {"--hue": hue(kind)}});
const layerCell = (layer) => el("span", {}, swatch(layer), String(layer));

function bar(layer, whole) {
  return el("div", {className: "bar", role: "img", "aria-label": `${size(layer.seen + layer.wasted)}, ${size(layer.wasted)} wasted`,
    style: {"--hue": hue(layer.number)}},
    el("div", {className: "kept colour", style: {width: `${whole ? 100 * layer.seen / whole : 0}%`}}),
    el("div", {className: "lost colour", style: {width: `${whole ? 100 * layer.wasted / whole : 0}%`}}));
}

// The directories and files of a packed tree.
function nodes(packed) {
  const all = packed.map(([parent, name, bytes, files, kind, restSize, restFiles]) => ({
    parent, name, size: bytes, files, kind, children: [], isFolder: restSize !== undefined, rest: restFiles ? [restSize, restFiles] : null,
  }));
  all.forEach((node) => {
    node.above = node.parent < 0 ? null : all[node.parent];
    if (node.above) node.above.children.push(node);
  });
  for (const node of all) {
    if (node.rest) node.children.push({
      name: counted(node.rest[1], "smaller file"), size: node.rest[0], files: node.rest[1], kind: null,
      children: [], isFolder: false, isRest: true, above: node,
    });
    node.children.sort((a, b) => b.size - a.size);
  }
  return all[0];
}
function pathOf(node) {
  const names = [];
  for (let at = node; at.above; at = at.above) names.unshift(at.name);
  return `/${names.join("/")}`;
}

// Squarified treemap (Bruls, Huizing, van Wijk).
function squares(items, x, y, width, height) {
  const placed = [];
  const total = items.reduce((sum, item) => sum + item.size, 0);
  if (!total || width <= 0 || height <= 0) return placed;
  const scale = width * height / total;
  let at = 0;
  while (at < items.length && width > 0.5 && height > 0.5) {
    const side = Math.min(width, height);
    let area = 0, worst = Infinity, end = at;
    while (end < items.length) {
      const next = area + items[end].size * scale;
      const ratio = Math.max(side * side * items[at].size * scale / (next * next), next * next / (side * side * items[end].size * scale));
      if (ratio > worst) break;
      area = next; worst = ratio; end += 1;
    }
    const thick = area / side;
    let along = 0;
    for (const item of items.slice(at, end)) {
      const long = item.size * scale / thick;
      placed.push(width >= height ? [item, x, y + along, thick, long] : [item, x + along, y, long, thick]);
      along += long;
    }
    if (width >= height) { x += thick; width -= thick; } else { y += thick; height -= thick; }
    at = end;
  }
  return placed;
}

function treemap(root, label, describe) {
  const crumbs = el("nav", {className: "crumbs", "aria-label": "Directory"});
  const map = el("div", {className: "map", role: "group", "aria-label": label});
  const about = el("p", {className: "about", "aria-live": "polite"});
  let current = root, lit = null, tiles = [];

  function open(node, focus) {
    const before = current;
    current = node;
    draw();
    if (focus) {
      const target = tiles.find((tile) => tile.node === before) || tiles[0];
      if (target) move(target);
    }
  }
  function drawCrumbs() {
    const way = [];
    for (let node = current; node; node = node.above) way.unshift(node);
    crumbs.replaceChildren(...way.flatMap((node, at) => [
      at > 1 ? el("span", {}, "/") : null,
      node === current ? el("b", {className: "path"}, node.above ? node.name : "/")
        : el("button", {type: "button", className: "path", onclick: () => open(node, true)}, node.above ? node.name : "/"),
    ].filter(Boolean)));
    if (!current.above) crumbs.append(el("span", {}, "all of it: open a directory to look into it"));
  }
  function draw() {
    drawCrumbs();
    tiles = [];
    const width = map.clientWidth || 800, height = map.clientHeight || 400;
    // The directory with the largest areas first: then a limit on their number leaves out the smallest.
    const average = ({node, width: wide, height: high}) => wide * high / (node.children.length || 1);
    const waiting = [{node: current, x: 0, y: 0, width, height}];
    while (waiting.length && tiles.length < MOST_TILES) {
      waiting.sort((a, b) => average(a) - average(b));
      waiting.push(...place(waiting.pop()));
    }
    map.replaceChildren(...tiles.map((tile) => tile.element));
    if (!tiles.length) map.append(el("p", {className: "about", style: {padding: "0 12px"}}, "There are no bytes in here."));
    else tiles[0].element.tabIndex = 0;
    tell(current);
    light();
    document.documentElement.dataset.ready = "yes";
  }
  // Adds the areas in a directory; returns the directories among them that are large enough to look into.
  function place({node, x, y, width, height}) {
    const folders = [];
    for (const [child, left, top, wide, high] of squares(node.children.filter((child) => child.size > 0), x, y, width, height)) {
      if (wide < 3 || high < 3) continue;
      let item = child, label = child.name;  // directories with one directory in them, as one: usr/share/doc
      while (item.isFolder && item.children.length === 1 && item.children[0].isFolder) {
        [item] = item.children;
        label += `/${item.name}`;
      }
      const kind = item.isRest ? " rest" : item.isFolder ? " folder" : "";
      const element = el("button", {
        type: "button", tabIndex: -1, className: `tile${kind}`, "aria-label": `${item.isRest ? item.name : pathOf(item)}, ${size(item.size)}`,
        style: {"--hue": hue(item.kind), left: `${left}px`, top: `${top}px`, width: `${wide}px`, height: `${high}px`},
        onclick: () => chosen(item, element), onfocus: () => tell(item), onmousemove: () => tell(item),
      });
      if (wide > 26 && high > 14) element.append(el("span", {}, label), wide > 110 ? el("i", {}, size(item.size)) : "");
      tiles.push({node: item, element, x: left, y: top, width: wide, height: high});
      if (item.isFolder && wide > 44 && high > 40) folders.push({node: item, x: left + 3, y: top + 18, width: wide - 6, height: high - 21});
    }
    return folders;
  }
  function chosen(item, element) {
    if (item.isFolder && item.children.length) open(item, true);
    else element.focus();
    tell(item);
  }
  let told = null;
  // Told of the mouse's own movement alone: tiles that are drawn below a resting mouse say nothing.
  function tell(node) {
    if (node === told) return;
    told = node;
    const name = node.isRest ? `${pathOf(node.above)}: ${node.name}` : pathOf(node);
    about.replaceChildren(el("span", {className: "path"}, name), el("br"),
      `${size(node.size)}, ${share(node.size, root.size)}${node.isFolder ? `, ${counted(node.files, "file")}` : ""}`,
      describe(node));
  }
  function move(tile) {
    for (const other of tiles) other.element.tabIndex = -1;
    tile.element.tabIndex = 0;
    tile.element.focus();
  }
  map.addEventListener("keydown", (event) => {
    const from = tiles.find((tile) => tile.element === document.activeElement);
    const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    if (["Backspace", "Escape"].includes(event.key) && current.above) open(current.above, true);
    else if (event.key in steps && from) {
      const [across, down] = steps[event.key];
      const middle = (tile) => [tile.x + tile.width / 2, tile.y + Math.min(tile.height / 2, 9)];
      const [x, y] = middle(from);
      const best = tiles.filter((tile) => tile !== from).map((tile) => {
        const [toX, toY] = middle(tile);
        const forward = across * (toX - x) + down * (toY - y);
        const aside = Math.abs(down * (toX - x)) + Math.abs(across * (toY - y));
        return {tile, cost: forward > 1 ? forward + 3 * aside : Infinity};
      }).sort((a, b) => a.cost - b.cost)[0];
      if (best && best.cost < Infinity) move(best.tile);
    } else return;
    event.preventDefault();
  });
  function light() {
    for (const tile of tiles) tile.element.classList.toggle("dimmed", lit !== null && !tile.node.isFolder && tile.node.kind !== lit);
  }
  let width = 0;
  new ResizeObserver(() => {
    if (map.clientWidth !== width) { width = map.clientWidth; draw(); }
  }).observe(map);
  return {parts: [crumbs, map, about], highlight: (kind) => { lit = kind; light(); }};
}

function section(title, note, ...children) {
  return el("section", {}, el("h2", {}, title), note ? el("p", {className: "note"}, note) : null, ...children);
}
const fact = (value, name) => el("div", {className: "fact"}, el("b", {}, value), el("span", {}, name));

function overview(image) {
  const list = el("dl", {});
  const add = (name, ...values) => list.append(el("dt", {}, name), el("dd", {}, ...values));
  add("ID", el("code", {}, image.id));
  add("Digest", el("code", {}, image.digest));
  if (image.platform) add("Platform", image.platform);
  if (image.created) add("Created", image.created);
  for (const [name, values] of image.config) add(name, ...values.flatMap((value, at) => [at ? el("br") : null, el("code", {}, value)]));
  return el("section", {}, data.images.length > 1 ? el("h2", {className: "path"}, image.name) : null,
    el("div", {className: "facts"},
      fact(size(image.size), `${counted(image.files, "file")} that a container sees`),
      fact(size(image.stored), `stored in ${counted(image.layers.length, "layer")}`),
      fact(size(image.wasted), `wasted, ${share(image.wasted, image.all)} of all files`),
      fact(`${(100 * image.efficiency).toFixed(1)}%`, "efficiency")),
    el("details", {}, el("summary", {}, "Identity and configuration"), list));
}

function layers(image, highlight) {
  const whole = Math.max(...image.layers.map((layer) => layer.seen + layer.wasted), 0);
  const all = image.layers.reduce((sum, layer) => sum + layer.seen + layer.wasted, 0);
  let chosen = null;
  const toggles = [];
  function toggle(number) {
    chosen = chosen === number ? null : number;
    for (const [layer, element] of toggles) {
      element.classList.toggle("dimmed", chosen !== null && layer !== chosen);
      element.setAttribute("aria-pressed", String(layer === chosen));
    }
    highlight(chosen);
  }
  const stack = el("div", {className: "stack", role: "group", "aria-label": "Layers; press one to see where its files are"});
  for (const layer of image.layers) {
    const own = layer.seen + layer.wasted;
    if (!own) continue;
    const element = el("button", {
      type: "button", "aria-pressed": "false", title: `layer ${layer.number}: ${size(own)}`, "aria-label": `layer ${layer.number}, ${size(own)}, ${size(layer.wasted)} wasted`,
      style: {"--hue": hue(layer.number), flex: `${own} 1 0`}, onclick: () => toggle(layer.number),
    }, el("div", {className: "kept colour", style: {width: `${100 * layer.seen / own}%`}}), el("div", {className: "lost colour", style: {width: `${100 * layer.wasted / own}%`}}));
    toggles.push([layer.number, element]);
    stack.append(element);
  }
  const columns = [
    {title: "Layer", number: true, value: (row) => row.number, cell: (row) => layerCell(row.number)},
    {title: "Files’ size", number: true, value: (row) => row.seen + row.wasted, cell: (row) => bytes(row.seen + row.wasted)},
    {title: "Share", className: "graph", number: false, value: (row) => -(row.seen + row.wasted), cell: (row) => bar(row, whole)},
    {title: "Wasted", number: true, value: (row) => row.wasted, cell: (row) => bytes(row.wasted)},
    {title: "Hides", number: true, className: "minor", value: (row) => row.hides, cell: (row) => bytes(row.hides)},
    {title: "Stored", number: true, className: "minor", value: (row) => row.stored, cell: (row) => bytes(row.stored)},
    {title: "Files", number: true, className: "minor", value: (row) => row.files, cell: (row) => count(row.files)},
    {title: "Created by", className: "wide", value: (row) => row.command, cell: (row) => command(row.command)},
  ];
  return section("Layers", "The base first. Press a layer to see where its files are. Hatched: bytes that upper layers delete, overwrite or repeat.",
    all ? stack : null, ...table(columns, image.layers, {sorted: 0, descending: false, label: "layers"}),
    el("div", {className: "legend"}, el("span", {}, el("span", {className: "key lost"}), ""),
      "Wasted: bytes of this layer that nobody sees. Hides: bytes of lower layers that this one hides."));
}

function about(image) {
  const label = "Sizes by directory";
  const map = treemap(nodes(image.tree), label, (node) => node.kind === null || node.kind === undefined ? "" :
    el("span", {}, node.isFolder ? ", most of it from layer " : ", layer ", layerCell(node.kind),
      image.layers[node.kind] ? command(`  ${image.layers[node.kind].command}`) : ""));
  const files = [
    {title: "Size", number: true, value: (row) => row[1], cell: (row) => bytes(row[1])},
    {title: "Layer", number: true, value: (row) => row[2], cell: (row) => layerCell(row[2])},
    {title: "File", className: "wide", value: (row) => row[0], cell: (row) => path(row[0])},
  ];
  const wasted = [
    {title: "Wasted", number: true, value: (row) => row[1], cell: (row) => bytes(row[1])},
    {title: "Layer", number: true, value: (row) => row[2], cell: (row) => layerCell(row[2])},
    {title: "Why", value: (row) => `${row[3]} by ${row[4]}`, cell: (row) => el("span", {}, `${row[3]} by layer `, layerCell(row[4]))},
    {title: "File", className: "wide", value: (row) => row[0], cell: (row) => path(row[0])},
  ];
  return [
    overview(image),
    layers(image, map.highlight),
    section("What takes the space", "Each area is a directory or file, its colour the layer. Click or Enter opens a directory, Backspace goes up, arrow keys move.", ...map.parts),
    section("Largest files", null, ...table(files, image.largest, {sorted: 0, filter: true, label: "largest files", all: image.files})),
    section("Waste", image.wasteRows ? `${size(image.wasted)} in ${counted(image.wasteRows, "file")} that no program sees.` : "Every byte can be seen.",
      ...(image.wasteRows ? table(wasted, image.waste, {sorted: 0, filter: true, label: "wasted files", all: image.wasteRows}) : [])),
  ];
}

function differences(found) {
  const changes = (word) => el("span", {}, swatch(word), word);
  const map = treemap(nodes(found.tree), "Differences by directory", (node) => node.kind ? el("span", {}, node.isFolder ? ", most of it " : ", ", changes(node.kind)) : "");
  const files = [
    {title: "Change", value: (row) => row[1], cell: (row) => changes(row[1])},
    {title: "Before", number: true, value: (row) => row[2], cell: (row) => row[1] === "added" ? "–" : bytes(row[2])},
    {title: "After", number: true, value: (row) => row[3], cell: (row) => row[1] === "removed" ? "–" : bytes(row[3])},
    {title: "File", className: "wide", value: (row) => row[0], cell: (row) => path(row[0])},
    {title: "What", className: "minor", value: (row) => row[4]},
  ];
  const pairs = (title) => [
    {title, className: "path", value: (row) => row[0]},
    {title: "Before", className: "path", value: (row) => row[1]},
    {title: "After", className: "path", value: (row) => row[2]},
  ];
  const total = Object.values(found.counts).reduce((sum, [files]) => sum + files, 0);
  return el("section", {}, el("h2", {}, "What differs"),
    el("p", {className: "note"}, "From the first image to the second. Each area is a directory or file that differs, as large as it is before or after."),
    el("div", {className: "facts"}, ...Object.entries(found.counts).map(([word, [files, sum]]) =>
      fact(el("span", {style: {color: "inherit", "font-size": "inherit"}}, swatch(word), count(files)), `${word}, ${size(sum)}`))),
    ...(total ? [...map.parts, ...table(files, found.rows, {sorted: null, filter: true, label: "files that differ", all: total})] : [el("p", {}, "The files are the same.")]),
    ...(found.packages.length ? [el("h2", {style: {"margin-top": "18px"}}, "Packages"), ...table(pairs("Package"), found.packages, {filter: true, label: "packages that differ"})] : []),
    ...(found.whyNoPackages ? [el("h2", {style: {"margin-top": "18px"}}, "Packages"), el("p", {}, `Not compared: ${found.whyNoPackages}`)] : []),
    ...(found.config.length ? [el("h2", {style: {"margin-top": "18px"}}, "Configuration"), ...table(pairs("Property"), found.config, {label: "configuration that differs"})] : []));
}

function show() {
  const names = data.images.map((image) => image.name);
  const title = el("h1", {}, ...names.flatMap((name, at) => [at ? el("span", {className: "arrow"}, "→") : null, el("span", {}, name)]));
  const body = el("div", {});
  page.replaceChildren(title, el("p", {className: "note"}, names.length > 1 ? "Two container images, and what differs" : "A container image"));
  if (data.differences) page.append(differences(data.differences));
  const tabs = data.images.map((image, at) => el("button", {
    type: "button", role: "tab", onclick: () => choose(at),
  }, image.name));
  function choose(at) {
    tabs.forEach((tab, number) => tab.setAttribute("aria-selected", String(number === at)));
    body.replaceChildren(...about(data.images[at]));
  }
  if (tabs.length > 1) page.append(el("div", {className: "tabs", role: "tablist", "aria-label": "Image"}, ...tabs));
  page.append(body, el("footer", {}, `Made by ${data.generator}. In a treemap, small files of a directory are one area. Sizes are in powers of 1000.`));
  choose(0);
}
show();
