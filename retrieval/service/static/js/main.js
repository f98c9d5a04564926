// The search page: state from the address, one search a column, answers drawn. docs/serving.md says what the service gives.
import { ask, cancel, session, whose } from "./api.js";
import { $, h, options } from "./dom.js";
import { drawChips, drawFacets } from "./facets.js";
import { openItem, openWhy } from "./item.js";
import { drawGrid, drawPaging, image, ranks, summary } from "./results.js";
import * as address from "./state.js";
import { searchBox } from "./suggest.js";

const SIZE = 24;
let settings = { profiles: [], facets: [], examples: [], users: [], fit: { drop: 0.3, floor: 0 }, sorts: [] };
let state = address.read(location.search);
let shown = null; // the first column's last answer: {answer, key}
let moved = null; // ranks before a recorded event, to mark what it moved
let box = null;

const profileOf = (name) => settings.profiles.find((profile) => profile.name === (name || settings.profile));

/** Takes a part of the state over, writes the address, and searches. */
function change(part, { replace = false, keep = false } = {}) {
  if (!keep && !("page" in part)) part = { ...part, page: 1 };
  state = { ...state, ...part };
  moved = null;
  history[replace ? "replaceState" : "pushState"](null, "", location.pathname + address.write(state));
  run();
}

function body(user, profile) {
  const filters = [];
  const fields = [...new Set(state.filters.map(([field]) => field))];
  for (const field of fields) filters.push({ field, operator: "=", values: state.filters.filter(([f]) => f === field).map(([, v]) => v) });
  if (state.min !== "") filters.push({ field: settings.price, operator: ">=", values: [Number(state.min)] });
  if (state.max !== "") filters.push({ field: settings.price, operator: "<=", values: [Number(state.max)] });
  if (state.stock) filters.push({ field: settings.stock, operator: "=", values: [true] });
  return {
    query: state.q.trim(), profile: profile || settings.profile, hits: SIZE, offset: (state.page - 1) * SIZE, filters,
    facets: settings.facets.map((field) => ({ field, limit: 12 })), sort: state.sort ? [state.sort] : [], ranks: true, ...whose(user),
  };
}

function search(slot, user, profile) {
  if (!state.similar) return ask("v1/search", { slot, body: body(user, profile) });
  return ask(`v1/similar/${encodeURIComponent(state.similar)}?${new URLSearchParams({ hits: String(SIZE) })}`, { slot });
}

function busy(yes) {
  $("#columns").setAttribute("aria-busy", String(yes));
  document.body.classList.toggle("busy", yes);
}

/** Searches for the state and draws what comes back, unless something newer has begun. */
async function run() {
  controls();
  $("#problem").hidden = true;
  const empty = address.isEmpty(state);
  $("#empty").hidden = !empty;
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
    drawFacets(settings, state, {}, change);
    return;
  }
  document.title = `${state.similar ? "Similar items" : state.q || "Filtered items"} – Product search`;
  busy(true);
  const compare = state.compare && !state.similar;
  try {
    const [a, b] = await Promise.all([search("a", state.user, state.profile), compare ? search("b", state.userB, state.profileB) : null]);
    if (a === null || (compare && b === null)) return; // something newer runs
    busy(false);
    draw(a, b);
  } catch (problem) {
    busy(false);
    failed(problem);
  }
}

function failed(problem) {
  for (const grid of document.querySelectorAll("ol.grid")) grid.replaceChildren();
  $("#status").textContent = "";
  const again = h("button", { type: "button", onclick: run }, "Try again");
  const title = { timeout: "The search took too long.", unavailable: "The search is not available.", caller: "This search cannot be run." };
  $("#problem").replaceChildren(h("h2", {}, title[problem.kind] ?? "The search failed."), h("p", {}, problem.message),
    problem.fix ? h("p", {}, problem.fix) : "", again);
  $("#problem").hidden = false;
}

function draw(a, b) {
  const context = (user, profile, before) => ({
    settings, profile: state.similar ? null : profileOf(profile), sorted: Boolean(state.sort), before,
    open: (hit) => opened(hit, user), why: (hit) => openWhy(hit, state, user), similar: (hit) => change({ ...address.EMPTY, similar: hit.item, user: state.user, profile: state.profile }),
  });
  drawGrid($("#a ol"), a, context(state.user, state.profile, b ? null : moved));
  $("#b").hidden = !b;
  if (b) drawGrid($("#b ol"), b, context(state.userB, state.profileB, ranks(a)));
  $("#columns").classList.toggle("two", Boolean(b));
  $("#status").textContent = summary(a, profileOf(state.profile), state, SIZE);
  $(".sorting").hidden = !settings.sorts.length || Boolean(state.similar);
  drawChips(state, change);
  drawFacets(settings, state, a.facets, change);
  drawPaging($("#paging"), a, state.page, SIZE, (page) => { change({ page }); $("#results").focus(); });
  shown = a;
}

/** A click on an item: recorded, shown, and the changed order is visible behind the dialog at once. */
async function opened(hit, user) {
  openItem(hit, settings, (kind) => record(hit, kind, user), (other) => change({ ...address.EMPTY, similar: other.item, user: state.user, profile: state.profile }));
  await record(hit, "click", user);
}

async function record(hit, kind, user) {
  const before = shown;
  try {
    const event = { item: hit.item, kind, event_id: crypto.randomUUID(), ...whose(user) };
    if (state.q.trim()) event.query = state.q.trim();
    if (before) event.search_id = before.search_id;
    const answer = await ask("v1/events", { body: event });
    if (!answer.recorded) return false;
  } catch {
    return false;
  }
  if (user) drawHistory();
  if (before && !address.isEmpty(state) && !state.similar) {
    moved = ranks(before);
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
    onclick: () => change({ ...address.EMPTY, similar: item, user: state.user, profile: state.profile }),
  }, image({ item, title: "", fields: {} }, settings)))));
  $("#history-title").textContent = items.length ? `${state.user} clicked` : `${state.user} has not clicked anything`;
  $("#forget").hidden = !items.length;
  section.hidden = false;
}

/** Selects and box as the state has them. */
function controls() {
  box.set(state.q);
  const users = [["", "Anonymous"], ...settings.users.map((user) => [user, user])];
  const profiles = settings.profiles.map((profile) => [profile.name, profile.label]);
  options($("#user"), users, state.user);
  options($("#user-b"), users, state.userB);
  options($("#profile"), profiles, state.profile || settings.profile);
  options($("#profile-b"), profiles, state.profileB || settings.profile);
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
    if (settings.demo) settings.users = (await ask("v1/users?limit=50").catch(() => [])).map((row) => row.user);
  } catch (problem) {
    failed(problem);
    return;
  }
  $("#empty .examples").replaceChildren(...settings.examples.map((text) => h("li", {}, h("button", { type: "button", onclick: () => change({ q: text }) }, text))));
  run();
  drawHistory();
}

start();
