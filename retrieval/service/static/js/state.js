// The page's state is its address: reload, back and a copied link show the same. Nothing here touches the DOM.

/** @typedef {{q: string, user: string, profile: string, filters: [string, string][], min: string, max: string,
 *   stock: boolean, sort: string, page: number, compare: boolean, userB: string, profileB: string, model: string, modelB: string,
 *   similar: string}} State */

export const EMPTY = Object.freeze({
  q: "", user: "", profile: "", filters: [], min: "", max: "", stock: false, sort: "", page: 1,
  compare: false, userB: "", profileB: "", model: "", modelB: "", similar: "",
});
const TEXTS = { q: "q", user: "user", profile: "rank", min: "min", max: "max", sort: "sort", userB: "userb", profileB: "rankb",
  model: "model", modelB: "modelb", similar: "similar" };

/** An address's query string → state; what cannot be is left out. */
export function read(search) {
  const given = new URLSearchParams(search);
  const state = { ...EMPTY, filters: [] };
  for (const [name, key] of Object.entries(TEXTS)) state[name] = (given.get(key) ?? "").slice(0, 300);
  for (const text of given.getAll("f").slice(0, 40)) {
    const at = text.indexOf(":");
    if (at > 0) state.filters.push([text.slice(0, at), text.slice(at + 1)]);
  }
  for (const name of ["min", "max"]) if (state[name] !== "" && !(Number(state[name]) >= 0)) state[name] = "";
  state.stock = given.get("stock") === "1";
  state.compare = given.get("vs") === "1";
  state.page = Math.min(Math.max(Math.trunc(Number(given.get("page"))) || 1, 1), 40);
  return state;
}

/** State → query string, "" for the empty page. */
export function write(state) {
  const out = new URLSearchParams();
  for (const [name, key] of Object.entries(TEXTS)) if (state[name]) out.set(key, state[name]);
  for (const [field, value] of state.filters) out.append("f", `${field}:${value}`);
  if (state.stock) out.set("stock", "1");
  if (state.compare) out.set("vs", "1");
  if (state.page > 1) out.set("page", String(state.page));
  const text = out.toString();
  return text ? `?${text}` : "";
}

/** Whether there is nothing to search for; filters wait for a query. */
export const isEmpty = (state) => !state.q.trim() && !state.similar;
