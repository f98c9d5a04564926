// Filters: facet counts as checkboxes, a price range, stock. Counts are of the candidates of this search, as Vespa groups them.
import { $, h, number, plain } from "./dom.js";

/** Draws the filters of an answer. change(part): a part of the state that takes its place. */
export function drawFacets(settings, state, facets, change) {
  const form = $("#facets form");
  const focused = document.activeElement && form.contains(document.activeElement) ? document.activeElement.id : "";
  const chosen = (field, value) => state.filters.some(([f, v]) => f === field && v === value);
  const toggle = (field, value, on) => {
    const rest = state.filters.filter(([f, v]) => f !== field || v !== value);
    change({ filters: on ? [...rest, [field, value]] : rest });
  };
  const groups = settings.facets.map((field) => {
    const buckets = (facets[field] ?? []).filter((b) => b.value !== null && b.value !== "");
    const values = buckets.map((b) => [String(b.value), b.count]);
    for (const [f, v] of state.filters) if (f === field && !values.some(([value]) => value === v)) values.push([v, 0]);
    if (!values.length) return null;
    return h("fieldset", {}, h("legend", {}, plain(field)), h("ul", {}, ...values.map(([value, count], i) => {
      const id = `f-${field}-${i}`;
      const box = h("input", { type: "checkbox", id, onchange: (event) => toggle(field, value, event.target.checked) });
      box.checked = chosen(field, value);
      return h("li", {}, box, h("label", { for: id }, h("span", {}, value), h("span", { class: "count" }, number(count))));
    })));
  });
  if (settings.price) groups.push(priceRange(settings.price, state, change));
  if (settings.stock) {
    const box = h("input", { type: "checkbox", id: "f-stock", onchange: (event) => change({ stock: event.target.checked }) });
    box.checked = state.stock;
    groups.push(h("fieldset", {}, h("legend", {}, "Stock"), h("ul", {}, h("li", {}, box, h("label", { for: "f-stock" }, "In stock only")))));
  }
  form.replaceChildren(...groups.filter(Boolean));
  if (focused) document.getElementById(focused)?.focus();
}

function priceRange(field, state, change) {
  const input = (name, label) => {
    const box = h("input", { type: "number", min: "0", step: "any", inputmode: "decimal", id: `f-${name}`, value: state[name],
      onchange: (event) => change({ [name]: event.target.value === "" || event.target.validity.valid ? event.target.value : state[name] }) });
    return h("p", {}, h("label", { for: `f-${name}` }, label), box);
  };
  return h("fieldset", { class: "range" }, h("legend", {}, plain(field)), input("min", "From"), input("max", "To"));
}

/** The active filters as buttons that remove them. */
export function drawChips(state, change) {
  const chip = (text, part) => h("li", {}, h("button", { type: "button", onclick: () => change(part) },
    text, h("span", { "aria-hidden": "true" }, " ×"), h("span", { class: "hidden" }, " (remove)")));
  const chips = state.filters.map(([field, value]) => chip(`${plain(field)}: ${value}`,
    { filters: state.filters.filter(([f, v]) => f !== field || v !== value) }));
  if (state.min) chips.push(chip(`From ${state.min}`, { min: "" }));
  if (state.max) chips.push(chip(`To ${state.max}`, { max: "" }));
  if (state.stock) chips.push(chip("In stock", { stock: false }));
  $("#chips").replaceChildren(...chips);
  $("#chips").hidden = !chips.length;
}
