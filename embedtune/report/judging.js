"use strict";
const cards = JSON.parse(document.getElementById("cards").textContent);
const pictures = JSON.parse(document.getElementById("pictures").textContent);
const storage = "embedtune-decisions-" + document.body.dataset.key;
const ANSWERS = [["relevant", "r", true], ["not relevant", "n", false], ["unsure", "u", null]];
const SORTS = {
  lead: (a, b) => b.lead - a.lead,
  score: (a, b) => b.score - a.score,
  gap: (a, b) => (a.positive_score - a.score) - (b.positive_score - b.score),
  query: (a, b) => a.query_id.localeCompare(b.query_id, undefined, { numeric: true }) || b.lead - a.lead,
};
const SHOWN = {
  all: () => true,
  open: (card) => !(idOf(card) in state.decisions),
  decided: (card) => idOf(card) in state.decisions,
  kept: (card) => card.kept,
  dropped: (card) => !card.kept,
};
const main = document.getElementById("content");
const by = document.getElementById("by");
const filter = document.getElementById("filter");
const sort = document.getElementById("sort");
let state = { by: "", decisions: {} };
let current = null; // the id of the card that keys decide

function idOf(card) {
  return JSON.stringify([card.query_id, card.doc_id]);
}

function keep() {
  try {
    localStorage.setItem(storage, JSON.stringify(state));
  } catch {
    document.getElementById("count").title = "This browser keeps nothing: save before you close the page.";
  }
}

function load() {
  try {
    const stored = JSON.parse(localStorage.getItem(storage));
    if (stored && typeof stored.decisions === "object") state = stored;
  } catch { /* nothing is stored */ }
  by.value = state.by;
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function side(heading, item) {
  const made = element("section", {}, element("h3", { textContent: heading }));
  if (item.picture !== null) made.append(element("img", { src: pictures[item.picture], alt: item.text || item.id }));
  if (item.missing) made.append(element("p", { className: "empty", textContent: `[${item.missing}: left out]` }));
  if (item.title) made.append(element("p", { className: "title", textContent: item.title }));
  if (item.text) made.append(element("p", { className: "text", textContent: item.text, tabIndex: 0 }));
  return made;
}

function cardElement(card) {
  const fate = card.kept ? "kept as a negative" : `dropped by ${card.dropped_by.join(", ") || "a filter"}`;
  const buttons = ANSWERS.map(([name, key, relevant]) => {
    const button = element("button", { type: "button", textContent: name + " " }, element("kbd", { textContent: key }));
    button.dataset.answer = name;
    button.addEventListener("click", () => decide(card, relevant));
    return button;
  });
  const made = element("article", { className: "card", tabIndex: -1 },
    element("header", {},
      element("span", { textContent: `query ${card.query_id} · document ${card.doc_id}` }),
      element("span", { textContent: `${fate} · ${card.source} rank ${card.rank} · lead ${card.lead.toFixed(3)}` })),
    element("div", { className: "sides" },
      side("Query", card.query),
      side(`Positive, ${card.positive_score.toFixed(3)}${card.positives > 1 ? `, the lowest of ${card.positives}` : ""}`, card.positive),
      side(`Suspect, ${card.score.toFixed(3)}`, card.suspect)),
    element("div", { className: "answers" }, ...buttons));
  made.dataset.id = idOf(card);
  made.addEventListener("focusin", () => choose(made.dataset.id));
  return made;
}

function show() {
  const listed = cards.filter(SHOWN[filter.value]).sort(SORTS[sort.value]);
  main.replaceChildren(...listed.map(cardElement));
  if (!listed.length) main.append(element("p", { className: "empty", textContent: "No suspect to show here." }));
  choose(listed.some((card) => idOf(card) === current) ? current : listed.length ? idOf(listed[0]) : null);
  mark();
}

function mark() {
  for (const article of main.querySelectorAll(".card")) {
    const decision = state.decisions[article.dataset.id];
    for (const [name, , relevant] of ANSWERS) {
      article.querySelector(`[data-answer="${name}"]`).setAttribute("aria-pressed", String(decision === relevant));
    }
  }
  const decided = Object.keys(state.decisions).length;
  document.getElementById("count").textContent = `${decided} of ${cards.length} decided`;
  document.getElementById("done").value = cards.length ? decided / cards.length : 0;
  document.getElementById("save").disabled = document.getElementById("clear").disabled = decided === 0;
}

function choose(id) {
  current = id;
  for (const article of main.querySelectorAll(".card")) article.classList.toggle("current", article.dataset.id === id);
}

function go(steps) {
  const articles = [...main.querySelectorAll(".card")];
  const index = articles.findIndex((article) => article.dataset.id === current);
  const next = articles[Math.min(Math.max(index + steps, 0), articles.length - 1)];
  if (!next) return;
  choose(next.dataset.id);
  next.scrollIntoView({ block: "start" });
}

function decide(card, relevant) {
  choose(idOf(card));
  if (relevant === undefined) delete state.decisions[current];
  else state.decisions[current] = relevant;
  keep();
  mark();
  if (relevant !== undefined) go(1);
}

function save() {
  const lines = cards.filter((card) => idOf(card) in state.decisions).map((card) => JSON.stringify({
    query_id: card.query_id, doc_id: card.doc_id, relevant: state.decisions[idOf(card)], by: state.by,
  }) + "\n");
  const link = element("a", { href: URL.createObjectURL(new Blob(lines, { type: "application/jsonl" })) });
  const name = [document.body.dataset.name, state.by, "decisions"].filter(Boolean).join("-");
  link.download = name.replace(/[^\p{L}\p{N}._-]+/gu, "-") + ".jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const card = cards.find((one) => idOf(one) === current);
  const answer = ANSWERS.find(([, key]) => key === event.key);
  if (event.key === "j") go(1);
  else if (event.key === "k") go(-1);
  else if (card && event.key === "x") decide(card, undefined);
  else if (card && answer) decide(card, answer[2]);
  else return;
  event.preventDefault();
});
by.addEventListener("input", () => { state.by = by.value.trim(); keep(); });
filter.addEventListener("change", show);
sort.addEventListener("change", show);
document.getElementById("save").addEventListener("click", save);
document.getElementById("clear").addEventListener("click", () => {
  if (!confirm("Forget every decision on this page?")) return;
  state.decisions = {};
  keep();
  show();
});
load();
show();
