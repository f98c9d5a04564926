// Elements without a framework. Text is always text: nothing of the catalogue is ever read as HTML.

/** h("p", {class: "x", onclick: f}, "text", child, null) → an element. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (selector) => document.querySelector(selector);

/** Options of a select, the chosen one kept; a choice that is not among them is added as it is. */
export function options(select, entries, chosen) {
  const known = entries.some(([value]) => value === chosen) ? entries : [...entries, [chosen, chosen]];
  select.replaceChildren(...known.map(([value, label]) => h("option", { value, selected: value === chosen }, label)));
  select.value = chosen;
}

export const number = (value) => new Intl.NumberFormat("en").format(value);
export const plain = (field) => field.replaceAll("_", " ").replace(/^./, (letter) => letter.toUpperCase());
