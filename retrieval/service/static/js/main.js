// The search page: state from the address, one search a column, answers drawn. docs/serving.md says what the service gives.
import { ask, cancel, session, whose } from "./api.js";
import { $, h, options } from "./dom.js";
import { drawChips, drawFacets } from "./facets.js";
import { openItem, openWhy } from "./item.js";
import { coverage, drawGrid, drawPaging, image, ranks, summary } from "./results.js";
import * as address from "./state.js";
import { searchBox } from "./suggest.js";

const SIZE = 24;
let settings = { profiles: [], models: ["main"], facets: [], examples: [], users: [], fit: { drop: 0.3, floor: 0 }, sorts: [] };
let state = address.read(location.search);
let shown = null; // the first column's last answer
let moved = null; // ranks before a recorded event, to mark what it moved
let box = null;

const profileOf = (name) => settings.profiles.find((profile) => profile.name === name);

/** What a column, "a" or "b", searches with. */
function side(name) {
  const [user, profile, model] = name === "a" ? [state.user, state.profile, state.model] : [state.userB, state.profileB, state.modelB];
  return { name, user, profile: profile || settings.profile, model: model || settings.models[0] };
}

/** Whether there are two columns: of similar items only where two models answer, since nothing else changes them. */
const compared = () => state.compare && (!state.similar || side("a").model !== side("b").model);

/** Items similar to one, for the same user and with the same models. */
function similarTo(item) {
  const { user, profile, model, userB, profileB, modelB } = state;
  change({ ...address.EMPTY, similar: item, user, profile, model, userB, profileB, modelB, compare: compared() });
}

/** Takes a part of the state over, writes the address, and searches. */
function change(part, { replace = false, keep = false } = {}) {
  if (!keep && !("page" in part)) part = { ...part, page: 1 };
  state = { ...state, ...part };
  moved = null;
  history[replace ? "replaceState" : "pushState"](null, "", location.pathname + address.write(state));
  run();
}

function filters() {
  const found = [];
  const fields = [...new Set(state.filters.map(([field]) => field))];
  for (const field of fields) found.push({ field, operator: "=", values: state.filters.filter(([f]) => f === field).map(([, v]) => v) });
  if (state.min !== "") found.push({ field: settings.price, operator: ">=", values: [Number(state.min)] });
  if (state.max !== "") found.push({ field: settings.price, operator: "<=", values: [Number(state.max)] });
  if (state.stock) found.push({ field: settings.stock, operator: "=", values: [true] });
  return found;
}

const offset = () => (state.page - 1) * SIZE;

function body({ user, profile, model }) {
  return {
    query: state.q.trim(), profile, model, hits: SIZE, offset: offset(), filters: filters(),
    facets: settings.facets.map((field) => ({ field, limit: 12 })), sort: state.sort ? [state.sort] : [], ranks: true, ...whose(user),
  };
}

function similarPath(model) {
  const parameters = new URLSearchParams({ hits: String(SIZE), offset: String(offset()), model });
  for (const { field, operator, values } of filters()) parameters.append("filter", `${field}${operator}${values.join("|")}`);
  return `v1/similar/${encodeURIComponent(state.similar)}?${parameters}`;
}

const searches = new Map(); // a list, as it is asked for → the search_id of its first page, which the others continue

/** {answer} or {problem} of a column; null when something newer took its place. */
async function search(column) {
  const slot = column.name;
  try {
    if (state.similar) {
      const answer = await ask(similarPath(column.model), { slot });
      return answer && { answer };
    }
    const sent = body(column);
    const list = JSON.stringify({ ...sent, offset: 0 });
    if (sent.offset) sent.search_id = searches.get(list);
    const answer = await ask("v1/search", { slot, body: sent });
    if (answer) searches.set(list, answer.search_id);
    return answer && { answer };
  } catch (problem) {
    return { problem };
  }
}

function busy(yes) {
  $("#columns").setAttribute("aria-busy", String(yes));
  document.body.classList.toggle("busy", yes);
}

/** Searches for the state and draws what comes back, unless something newer has begun. */
async function run() {
  controls();
  const empty = address.isEmpty(state);
  $("#empty").hidden = !empty;
  $("#facets").hidden = empty;
  $("#columns").hidden = empty;
  $("#paging").hidden = true;
  if (empty) {
    for (const slot of ["a", "b"]) cancel(slot);
    busy(false);
    shown = null;
    $("#status").textContent = "";
    $(".sorting").hidden = true;
    document.title = "Product search";
    drawChips(state, change);
    return;
  }
  document.title = `${state.similar ? "Similar items" : state.q} – Product search`;
  busy(true);
  const columns = compared() ? [side("a"), side("b")] : [side("a")];
  const found = await Promise.all(columns.map(search));
  if (found.includes(null)) return; // something newer runs
  busy(false);
  draw(columns.map((column, i) => ({ ...column, ...found[i] })));
}

/** Says in a box what went wrong. */
function tell(box, problem) {
  const again = h("button", { type: "button", onclick: run }, "Try again");
  const title = { timeout: "The search took too long.", unavailable: "The search is not available.", caller: "This search cannot be run." };
  box.replaceChildren(h("h2", {}, title[problem.kind] ?? "The search failed."), h("p", {}, problem.message), problem.fix ? h("p", {}, problem.fix) : "", again);
  box.hidden = false;
}

/** Draws one column, or two, of which one may have failed. */
function draw(columns) {
  const [a, b] = columns;
  const first = a.answer ?? b?.answer;
  for (const column of columns) {
    const before = column === b ? a.answer && ranks(a.answer) : b ? null : moved;
    const context = {
      settings, profile: state.similar ? null : profileOf(column.profile), sorted: Boolean(state.sort), before,
      open: (hit) => opened(hit, column), why: (hit) => openWhy(hit, state, column), similar: (hit) => similarTo(hit.item),
    };
    drawGrid($(`#${column.name} ol`), column.answer ?? { hits: [] }, context);
    const box = $(`#${column.name} .problem`);
    box.hidden = true;
    if (column.problem) tell(box, column.problem);
  }
  $("#b").hidden = !b;
  $("#columns").classList.toggle("two", Boolean(b));
  $("#status").textContent = b ? common(a, b) : a.answer ? summary(a.answer, profileOf(a.profile), state) : "";
  describe(columns);
  $(".sorting").hidden = !settings.sorts.length || Boolean(state.similar);
  drawChips(state, change);
  drawFacets(settings, state, first?.facets ?? {}, change);
  if (first) drawPaging($("#paging"), first, state.page, SIZE, (page) => { change({ page }); $("#results").focus(); });
  shown = a.answer ?? null;
}

/** How far two columns agree. */
function common(a, b) {
  if (!a.answer || !b.answer) return a.answer || b.answer ? `The ${a.answer ? "right" : "left"} side has no answer.` : "";
  const left = ranks(a.answer);
  const both = b.answer.hits.filter((hit) => left.has(hit.item)).length;
  return `${both} of ${Math.max(a.answer.hits.length, b.answer.hits.length)} items are on both sides.`;
}

/** Above each of two columns: what was found, and, of two models, what each index has. */
async function describe(columns) {
  cancel("models");
  $("#a .said").hidden = $("#b .said").hidden = columns.length === 1;
  if (columns.length === 1) return;
  const [a, b] = columns;
  const say = (column, more = "") => {
    $(`#${column.name} .said`).textContent = (column.answer ? summary(column.answer, profileOf(column.profile), state) : "") + more;
  };
  columns.forEach((column) => say(column));
  if (a.model === b.model) return;
  const titles = (column) => new Map((column.answer?.hits ?? []).map((hit) => [hit.item, hit.title || hit.item]));
  const items = [...new Map([...titles(a), ...titles(b)]).keys()];
  const told = await ask(`v1/models?${new URLSearchParams(items.map((item) => ["item", item]))}`, { slot: "models" }).catch(() => null);
  if (told === null) return;
  for (const [column, other, half] of [[a, b, "right"], [b, a, "left"]]) {
    say(column, coverage(told.find((model) => model.name === column.model), titles(other), half));
  }
}

/** A click on an item: recorded, shown, and the changed order is visible behind the dialog at once. */
async function opened(hit, column) {
  openItem(hit, settings, (kind) => record(hit, kind, column), (other) => similarTo(other.item));
  await record(hit, "click", column);
}

async function record(hit, kind, { user, answer }) {
  try {
    const event = { item: hit.item, kind, event_id: crypto.randomUUID(), search_id: answer.search_id, ...whose(user) };
    if (state.q.trim()) event.query = state.q.trim();
    if (!(await ask("v1/events", { body: event })).recorded) return false;
  } catch {
    return false;
  }
  if (user) drawHistory();
  if (!address.isEmpty(state) && !state.similar) {
    moved = shown && ranks(shown);
    await run();
  }
  return true;
}

/** The chosen user's last clicks, as images. */
async function drawHistory() {
  const section = $("#history");
  if (!state.user || !settings.demo) { cancel("history"); section.hidden = true; return; }
  const found = await ask(`v1/users/${encodeURIComponent(state.user)}`, { slot: "history" }).catch(() => null);
  if (found === null) return;
  const items = [...new Set(found.events.map((event) => event.item))].slice(0, 12);
  section.querySelector("ul").replaceChildren(...items.map((item) => h("li", {}, h("button", {
    type: "button", "aria-label": `Similar to ${item}`, title: item,
    onclick: () => similarTo(item),
  }, image({ item, title: "", fields: {} }, settings)))));
  $("#history-title").textContent = items.length ? `${state.user} clicked` : `${state.user} has not clicked anything`;
  $("#forget").hidden = !items.length;
  section.hidden = false;
}

/** A user and what he searched for before he clicked: "u17: red dress, shoes". */
function userLabel({ user, events }) {
  const queries = [...new Set(events.map((event) => event.query).filter(Boolean))].slice(0, 2);
  return queries.length ? `${user}: ${queries.join(", ")}` : user;
}

/** Selects and box as the state has them. */
function controls() {
  box.set(state.q);
  const users = [["", "Anonymous"], ...settings.users];
  const profiles = settings.profiles.map((profile) => [profile.name, profile.label]);
  options($("#user"), users, state.user);
  options($("#user-b"), users, state.userB);
  options($("#profile"), profiles, state.profile || settings.profile);
  options($("#profile-b"), profiles, state.profileB || settings.profile);
  for (const [id, chosen] of [["model", state.model], ["model-b", state.modelB]]) {
    options($(`#${id}`), settings.models.map((name) => [name, name]), chosen || settings.models[0]);
    $(`#${id}`).hidden = $(`label[for=${id}]`).hidden = settings.models.length < 2 && !chosen;
  }
  options($("#sort"), [["", "Best match"], ...settings.sorts], state.sort);
  $("#compare").setAttribute("aria-pressed", String(state.compare));
}

async function start() {
  box = searchBox(
    (text) => change({ q: text, similar: "" }, { replace: true }),
    (text) => { change({ q: text, similar: "" }); $("#results").focus({ preventScroll: true }); },
  );
  $("#user").addEventListener("change", (event) => { change({ user: event.target.value }); drawHistory(); });
  $("#profile").addEventListener("change", (event) => change({ profile: event.target.value }));
  $("#user-b").addEventListener("change", (event) => change({ userB: event.target.value }));
  $("#profile-b").addEventListener("change", (event) => change({ profileB: event.target.value }));
  $("#model").addEventListener("change", (event) => change({ model: event.target.value }));
  $("#model-b").addEventListener("change", (event) => change({ modelB: event.target.value }));
  $("#sort").addEventListener("change", (event) => change({ sort: event.target.value }));
  $("#compare").addEventListener("click", () => change({ compare: !state.compare }, { keep: true }));
  $("#home").addEventListener("click", (event) => { event.preventDefault(); change({ ...address.EMPTY, user: state.user }); });
  $("#forget").addEventListener("click", async () => {
    await ask(`v1/users/${encodeURIComponent(state.user)}`, { method: "DELETE" }).catch(() => null);
    drawHistory();
    run();
  });
  addEventListener("popstate", () => { state = address.read(location.search); moved = null; box.close(); run(); drawHistory(); });
  if (matchMedia("(max-width: 50rem)").matches) $("#facets").open = false;
  session();
  try {
    settings = { ...settings, ...(await ask("v1/page")) };
    if (settings.demo) settings.users = (await ask("v1/users?limit=50").catch(() => [])).map((row) => [row.user, userLabel(row)]);
  } catch (problem) {
    draw([{ ...side("a"), problem }]);
    return;
  }
  $("#empty .examples").replaceChildren(...settings.examples.map((text) => h("li", {}, h("button", { type: "button", onclick: () => change({ q: text }) }, text))));
  run();
  drawHistory();
}

start();
