// Hits as a grid: image, title, price, brand, stock, why it is here, how far it moved, and the line below which nothing fits well.
import { h, number } from "./dom.js";

const QUEUES = { q2i: "query", i2i: "clicked items", image: "clicked images" };

/** The place in a ranking of each item. */
export const ranks = (answer) => new Map(answer.hits.map((hit, i) => [hit.item, answer.offset + i + 1]));

/** Index of the first hit of the first page that does not fit well, or the number of hits. Only scores that are closenesses,
 *  1 / (2 − cosine), in their order have such a line. fit: how far below the best hit's cosine, and the least cosine at all. */
export function fitLine(answer, profile, fit, sorted) {
  if (!profile?.cosine || sorted || answer.offset > 0 || !answer.hits.length) return answer.hits.length;
  const cosine = (hit) => 2 - 1 / Math.max(hit.score, 1e-9);
  const line = Math.max(cosine(answer.hits[0]) - fit.drop, fit.floor);
  const at = answer.hits.findIndex((hit) => cosine(hit) < line);
  return at < 0 ? answer.hits.length : at;
}

/** Why a hit was found: "query #3, clicked items #12". */
export function foundBy(queues) {
  const found = Object.entries(queues ?? {}).map(([queue, rank]) => `${QUEUES[queue] ?? queue}${rank ? ` #${rank}` : ""}`);
  return found.length ? `Found by ${found.join(", ")}` : "";
}

/** How a hit moved against earlier ranks, as text and as a class. */
export function move(before, item, rank) {
  if (!before) return null;
  const was = before.get(item);
  if (was === undefined) return ["new", "new"];
  if (was === rank) return ["same", "="];
  return was > rank ? ["up", `▲ ${was - rank}`] : ["down", `▼ ${rank - was}`];
}

const WORDS = { new: "newly in the list", same: "same place", up: "moved up", down: "moved down" };

/** Draws a list of hits. context: settings, profile, sorted (by a field), before (ranks to compare with), open, why, similar (of a hit). */
export function drawGrid(list, answer, context) {
  const line = fitLine(answer, context.profile, context.settings.fit, context.sorted);
  const rows = answer.hits.map((hit, i) => card(hit, answer.offset + i + 1, context));
  if (line < rows.length) rows.splice(line, 0, h("li", { class: "line" }, line ? "Below this line nothing fits well" : "Nothing fits well; these are nearest"));
  list.replaceChildren(...rows);
}

function card(hit, rank, context) {
  const { fields } = hit;
  const moved = move(context.before, hit.item, rank);
  const stock = fields.in_stock;
  return h("li", { class: "card", "data-item": hit.item },
    h("div", { class: "image" }, image(hit, context.settings),
      moved && h("span", { class: `move ${moved[0]}`, title: WORDS[moved[0]] }, moved[1], h("span", { class: "hidden" }, ` ${WORDS[moved[0]]}`))),
    h("h2", {}, h("button", { type: "button", class: "title", onclick: () => context.open(hit) }, hit.title || hit.item)),
    h("p", { class: "facts" }, fields.price !== undefined && h("strong", {}, price(fields.price)),
      fields.brand && h("span", {}, fields.brand),
      stock !== undefined && h("span", { class: stock ? "in" : "out" }, stock ? "in stock" : "sold out")),
    h("p", { class: "found" }, foundBy(hit.queues)),
    h("p", { class: "actions" },
      h("button", { type: "button", onclick: () => context.why(hit), "aria-label": `Why ${hit.title}?` }, "Why?"),
      h("button", { type: "button", onclick: () => context.similar(hit), "aria-label": `Similar to ${hit.title}` }, "Similar")));
}

export const price = (value) => new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 }).format(value);

/** The item's image, or a blank tile where there is none. */
export function image(hit, settings) {
  const source = hit.fields?.image_url || (settings.images ? `v1/images/${encodeURIComponent(hit.item)}` : "");
  if (!source) return h("span", { class: "blank", "aria-hidden": "true" });
  const tag = h("img", { src: source, alt: hit.title ? `Image of ${hit.title}` : "", loading: "lazy", width: "200", height: "200" });
  tag.addEventListener("error", () => tag.replaceWith(h("span", { class: "blank", "aria-hidden": "true" })), { once: true });
  return tag;
}

/** One honest sentence about how much was found. */
export function summary(answer, profile, state) {
  if (!answer.hits.length) return answer.offset ? "There are no more items." : "No item matches.";
  const to = answer.offset + answer.hits.length;
  const span = `${number(answer.offset + 1)}–${number(to)}`;
  const of = state.similar ? `of the ${number(answer.total)} nearest items`
    : profile?.counts === "matches" ? `of ${number(answer.total)} matching items`
      : `of the ${number(answer.total)} candidates that recall found`;
  const whose = answer.clicks ? `, ordered with ${number(answer.clicks)} earlier ${answer.clicks === 1 ? "event" : "events"}` : "";
  const notes = answer.fallbacks.map((f) => ` Without ${f.step}: ${f.reason}.`).join("");
  const part = answer.coverage < 1 ? ` Only ${Math.round(answer.coverage * 100)} % of the catalogue was searched.` : "";
  return `${span} ${of}${whose}, ${Math.max(1, Math.round(answer.seconds * 1000))} ms.${notes}${part}`;
}

/** What one of two models says of its index: how much it covers, and what of the other side's items it lacks. told: its row of
 *  /v1/models. titles: of the other side's items, by id. half: where they are. */
export function coverage(told, titles, half) {
  if (!told) return "";
  if (told.problem) return ` Model ${told.name}.`;
  const without = told.without ? `, without ${number(told.without)} of the ${number(told.items + told.without)} items of its index` : "";
  const lacks = told.lacks.filter((item) => titles.has(item)).map((item) => titles.get(item));
  const missing = lacks.length ? ` It lacks ${number(lacks.length)} of the items on the ${half}: ${lacks.slice(0, 3).join(", ")}${lacks.length > 3 ? ", …" : "."}` : "";
  return ` Model ${told.name} (${told.model_version}${without}).${missing}`;
}

/** Buttons of the pages; size: hits a page. */
export function drawPaging(nav, answer, page, size, go) {
  const pages = Math.min(Math.ceil(answer.total / size), 40);
  nav.hidden = pages < 2;
  if (nav.hidden) { nav.replaceChildren(); return; }
  const button = (label, to, current = false) => h("button", { type: "button", disabled: to < 1 || to > pages, "aria-current": current ? "page" : null,
    "aria-label": current ? `Page ${to}, current` : null, onclick: () => go(to) }, label);
  const near = [...new Set([1, page - 1, page, page + 1, pages])].filter((p) => p >= 1 && p <= pages);
  nav.replaceChildren(button("Previous", page - 1), ...near.map((p) => button(number(p), p, p === page)), button("Next", page + 1));
}
