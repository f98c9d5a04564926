// The dialog of one item: its facts, events that a shopper would cause, and why it stands where it does (/v1/explain).
import { ask, whose } from "./api.js";
import { $, h, plain } from "./dom.js";
import { foundBy, image, price } from "./results.js";

const PARTS = {
  input_query_text: "Words of the query", input_history_text: "What the clicked items are", input_history_image: "How the clicked items look",
  expert_vbert: "VBert: words and images", expert_light_bert: "Light-Bert: words in order", expert_ft_att: "FtAtt: tokens and n-grams",
  expert_history: "History expert",
};
const HIDDEN = new Set(["item_id", "title", "image_url", "model_version", "category", "description", "summaryfeatures", "rankfeatures"]);

const dialog = () => $("#item");

function show(hit, ...children) {
  const box = dialog();
  const close = h("button", { type: "button", class: "close", onclick: () => box.close() }, "Close");
  box.replaceChildren(close, h("h2", { id: "item-title" }, hit.title || hit.item), ...children);
  if (!box.open) box.showModal();
  close.focus();
}

/** The item's page in small. record(kind): tells the service what the shopper did. */
export function openItem(hit, settings, record, similar) {
  const facts = Object.entries(hit.fields).filter(([name, value]) => !HIDDEN.has(name) && typeof value !== "object")
    .map(([name, value]) => h("div", {}, h("dt", {}, plain(name)), h("dd", {}, name === "price" ? price(value) : String(value))));
  const said = h("p", { role: "status" });
  const act = (kind, label, done) => h("button", { type: "button", onclick: async () => { said.textContent = (await record(kind)) ? done : "Not recorded."; } }, label);
  show(hit, h("div", { class: "image large" }, image(hit, settings)),
    hit.category.length ? h("p", { class: "path" }, hit.category.join(" › ")) : null,
    hit.fields.description ? h("p", {}, hit.fields.description) : null,
    h("dl", {}, ...facts),
    h("p", { class: "actions" }, act("cart", "Add to cart", "Added to the cart."), act("order", "Buy", "Ordered."),
      h("button", { type: "button", onclick: () => { dialog().close(); similar(hit); } }, "Similar items")), said);
}

/** Why the hit is here: the queues with ranks, and what its score loses without each part. */
export async function openWhy(hit, state, { user, model }) {
  const waiting = h("p", { "aria-busy": "true" }, "Asking the model…");
  const first = h("p", {}, foundBy(hit.queues) || "Found as one of the nearest neighbours of the query's vector.");
  show(hit, first, waiting);
  try {
    const found = await ask("v1/explain", { slot: "explain", body: { query: state.q, item: hit.item, model, ...whose(user) } });
    if (found === null) return;
    const parts = Object.entries(found.shares).filter(([name]) => PARTS[name]);
    const most = Math.max(...parts.map(([, value]) => Math.abs(value)), 1e-6);
    const table = (title, prefix) => h("table", {}, h("caption", {}, title), h("tbody", {}, ...parts.filter(([name]) => name.startsWith(prefix))
      .map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, PARTS[name]),
        h("td", {}, h("meter", { min: "0", max: String(most), value: String(Math.max(value, 0)), "aria-label": PARTS[name] })),
        h("td", { class: "value" }, value.toFixed(3))))));
    first.textContent = foundBy(found.queues) || first.textContent;
    waiting.replaceWith(h("div", {}, h("p", {}, `Score ${found.score.toFixed(3)}${found.clicks ? `, with ${found.clicks} earlier events` : ", without a history"}. What it loses without each part:`),
      table("What was asked", "input_"), table("Who judged it", "expert_")));
  } catch (problem) {
    waiting.replaceWith(h("p", { role: "alert" }, `${problem.message} ${problem.fix ?? ""}`));
  }
}
