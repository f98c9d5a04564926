// The search box: searches as one types, suggestions from the log as an ARIA combobox with a listbox.
import { ask, cancel } from "./api.js";
import { $, h } from "./dom.js";

const WAIT = 180; // ms without a key before a search

/** onType(text) while typing, onSubmit(text) for Enter, the button, or a chosen suggestion. */
export function searchBox(onType, onSubmit) {
  const input = $("#q");
  const list = $("#suggestions");
  let timer = 0;
  let active = -1;
  let composing = false;

  const entries = () => [...list.children];
  function close() {
    cancel("suggest");
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }
  function mark(index) {
    const all = entries();
    active = all.length ? (index + all.length) % all.length : -1;
    all.forEach((entry, i) => entry.setAttribute("aria-selected", String(i === active)));
    if (active >= 0) {
      input.setAttribute("aria-activedescendant", all[active].id);
      all[active].scrollIntoView({ block: "nearest" });
    }
  }
  function submit(text) {
    clearTimeout(timer);
    input.value = text;
    close();
    onSubmit(text);
  }
  async function suggest() {
    const text = input.value.trim();
    const found = await ask(`v1/suggest?${new URLSearchParams({ q: text, limit: "8" })}`, { slot: "suggest" }).catch(() => null);
    if (found === null || document.activeElement !== input) return;
    const others = found.filter((row) => row.query !== text);
    list.replaceChildren(...others.map((row, i) => {
      const choose = (event) => { event.preventDefault(); submit(row.query); };
      return h("li", { id: `suggestion-${i}`, role: "option", "aria-selected": "false", onpointerdown: choose }, row.query);
    }));
    active = -1;
    list.hidden = !others.length;
    input.setAttribute("aria-expanded", String(others.length > 0));
  }
  input.addEventListener("compositionstart", () => { composing = true; });
  input.addEventListener("compositionend", () => { composing = false; changed(); });
  function changed() {
    if (composing) return; // half a Japanese word is no query
    clearTimeout(timer);
    timer = setTimeout(() => { onType(input.value); suggest(); }, WAIT);
  }
  input.addEventListener("input", changed);
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (list.hidden) { suggest(); return; }
      event.preventDefault();
      mark(active + (event.key === "ArrowDown" ? 1 : active < 0 ? 0 : -1));
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      close();
    } else if (event.key === "Enter") {
      event.preventDefault();
      submit(!list.hidden && active >= 0 ? entries()[active].textContent : input.value);
    }
  });
  input.addEventListener("blur", close);
  $("#search").addEventListener("submit", (event) => { event.preventDefault(); submit(input.value); });
  return { set: (text) => { if (document.activeElement !== input || input.value.trim() !== text.trim()) input.value = text; }, close };
}
