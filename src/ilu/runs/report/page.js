"use strict";
// Sorting, filtering and the questions of the report. Texts are set as textContent, never as markup.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (id) => document.getElementById(id);
const make = (tag, text, className = "") => Object.assign(document.createElement(tag), { textContent: text, className });

function sortable(table) {
  all("thead th", table).forEach((head, column) => {
    const button = make("button", "");
    const tip = head.querySelector(".tip");
    button.append(...[...head.childNodes].filter((node) => node !== tip));
    head.prepend(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => order(a.cells[column], b.cells[column], down ? -1 : 1)));
    });
  });
}

function order(a, b, sign) {
  const [x, y] = [a, b].map((cell) => Number(cell.dataset.value ?? cell.textContent));
  if (Number.isNaN(x) && Number.isNaN(y)) return sign * a.textContent.localeCompare(b.textContent);
  if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // what has no number comes last
  return sign * (x - y);
}

function filterModels() {
  if (!one("filter")) return;
  const boxes = all("#legend input");
  const show = () => {
    const words = one("filter").value.toLowerCase();
    boxes.forEach((box) => {
      const item = box.closest("li");
      const matches = item.textContent.toLowerCase().includes(words);
      item.classList.toggle("off", !matches);
      all(`[data-row="${box.value}"]`).forEach((part) => part.classList.toggle("off", !matches || !box.checked));
    });
  };
  const check = (checked) => () => { boxes.forEach((box) => { box.checked = checked; }); show(); };
  one("filter").addEventListener("input", show);
  one("legend").addEventListener("change", show);
  one("all").addEventListener("click", check(true));
  one("none").addEventListener("click", check(false));
  show();
}

function verdicts() {
  one("verdict")?.addEventListener("change", (event) =>
    all(".strip").forEach((strip, i) => strip.classList.toggle("on", i === Number(event.target.value))));
}

// Where an attack was carried out elsewhere, its questions may be others than those asked before unlearning.
const KINDS = {
  "": () => true,
  back: (before, after, attacked) => before !== 0 && after === 0 && attacked === 1,
  gone: (before, after, attacked) => before !== 0 && after === 0 && attacked === 0,
  kept: (before, after) => before !== 0 && after === 1,
  unknown: (before) => before === 0,
};
const PAGE = 25;

function questions() {
  if (!one("data")) return;
  const runs = JSON.parse(one("data").textContent);
  const [run, attack, kind, words, reveal] = ["run", "attack", "kind", "words", "reveal"].map(one);
  let shown = PAGE;
  run.append(...runs.map((each, i) => Object.assign(make("option", `${each.run}: ${each.metric}`), { value: i })));

  const current = () => runs[Number(run.value)];
  const value = (stage, i) => {
    const found = current().values[stage]?.[i];
    return typeof found === "string" ? { 1: 1, 0: 0 }[found] : found ?? undefined;
  };
  const texts = (stage, i) => current().texts[stage]?.[i] ?? {};

  function pickRun() {
    const ends = Object.keys(current().values).filter((stage) => stage.endsWith("-end"));
    const kept = attack.value;
    attack.replaceChildren(...ends.map((stage) => Object.assign(make("option", stage), { value: stage })));
    if (ends.includes(kept)) attack.value = kept;
    attack.hidden = !ends.length;
    one("reveal-label").hidden = !Object.keys(current().texts).length;
    draw();
  }

  function draw() {
    const start = attack.value.replace(/end$/, "start");
    const asked = start in current().values ? ["", start, attack.value] : ["before", "after", attack.value];
    const stages = asked.filter((stage) => stage in current().values);
    const count = Math.max(...stages.map((stage) => current().values[stage].length));
    const wanted = words.value.toLowerCase();
    const match = (i) => KINDS[kind.value](...asked.map((stage) => value(stage, i)))
      && (!wanted || String(i) === wanted
        || (reveal.checked && stages.some((stage) => Object.values(texts(stage, i)).join(" ").toLowerCase().includes(wanted))));
    const found = [...Array(count).keys()].filter(match);
    one("count").textContent = `${found.length} of ${count} questions`;
    const head = make("tr", "");
    head.append(make("th", "question"), ...stages.map((stage) => make("th", stage, "text")));
    document.querySelector("#questions thead").replaceChildren(head);
    document.querySelector("#questions tbody").replaceChildren(...found.slice(0, shown).map((i) => line(i, stages)));
    one("more").hidden = found.length <= shown;
  }

  function line(i, stages) {
    const row = make("tr", "");
    row.append(make("td", String(i)));
    for (const stage of stages) {
      const found = value(stage, i);
      const cell = make("td", { 1: "✓", 0: "✗" }[found] ?? found ?? "-", "answer");
      const told = reveal.checked ? texts(stage, i) : {};
      for (const [key, text] of Object.entries(told)) {
        cell.append(make("small", key), make("bdi", text));
      }
      row.append(cell);
    }
    return row;
  }

  const again = () => { shown = PAGE; draw(); };
  run.addEventListener("change", () => { shown = PAGE; pickRun(); });
  [attack, kind, words, reveal].forEach((each) => each.addEventListener("input", again));
  one("more").addEventListener("click", () => { shown += 4 * PAGE; draw(); });
  pickRun();
}

// A live page asks every few seconds whether the runs have gone on, and keeps what the reader had set.
const SETTINGS = ["verdict", "filter", "run", "attack", "kind", "words"];

function begin() {
  document.documentElement.classList.add("js");
  all("table.sortable").forEach(sortable);
  filterModels();
  verdicts();
  questions();
}

async function follow() {
  let seen = "";
  for (;;) {
    try {
      const state = await (await fetch("state", { cache: "no-store" })).text();
      if (seen && state !== seen) await refresh();
      seen = state;
    } catch {
      document.title = "(stopped) Unlearning report";
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

async function refresh() {
  const text = await (await fetch("./", { cache: "no-store" })).text();
  const next = new DOMParser().parseFromString(text, "text/html").querySelector("main");
  const open = all("details[open]").map((each) => each.querySelector("summary").textContent);
  const kept = SETTINGS.filter(one).map((id) => [id, one(id).value]);
  const off = new Set(all("#legend input:not(:checked)").map((box) => box.closest("li").textContent));
  document.querySelector("main").replaceWith(next);
  all("#legend input").forEach((box) => { box.checked = !off.has(box.closest("li").textContent); });
  all("details").forEach((each) => { each.open = open.includes(each.querySelector("summary").textContent); });
  begin();
  for (const [id, value] of kept) {
    if (!one(id)) continue;
    one(id).value = value;
    for (const kind of ["input", "change"]) one(id).dispatchEvent(new Event(kind, { bubbles: true }));
  }
}

begin();
if ("live" in document.body.dataset) follow();
