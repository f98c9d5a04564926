// Requests to the service. An answer that is late never wins: each slot has one request, and a new one ends the old.

const slots = new Map();

/** Ends whatever a slot waits for. */
export function cancel(slot) {
  slots.get(slot)?.abort();
  slots.delete(slot);
}

export class Problem extends Error {
  constructor(kind, message, fix) {
    super(message);
    this.kind = kind;
    this.fix = fix ?? "";
  }
}

const KEY = "search-key";
const given = new URLSearchParams(location.hash.slice(1)).get("key");
if (given) {
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname + location.search); // not for history, nor for a copied address
}

/** A key in the address (`/#key=KEY`, never sent as a part of it), for this tab: of a service that asks for one. */
const bearer = () => {
  const key = sessionStorage.getItem(KEY);
  return key ? { authorization: `Bearer ${key}` } : {};
};

/** The JSON at a path; `body` makes it a POST. Null when a newer request of the slot took over. Throws Problem. */
export async function ask(path, { slot = "", body = undefined, method = undefined } = {}) {
  const abort = new AbortController();
  if (slot) {
    cancel(slot);
    slots.set(slot, abort);
  }
  const headers = { ...bearer(), ...(body === undefined ? {} : { "content-type": "application/json" }) };
  const init = { method: method ?? (body === undefined ? "GET" : "POST"), headers, signal: abort.signal };
  if (body !== undefined) init.body = JSON.stringify(body);
  let answer;
  let found;
  try {
    answer = await fetch(path, init);
    found = await answer.json().catch(() => ({}));
  } catch (error) {
    if (abort.signal.aborted) return null;
    throw new Problem("unavailable", "The service does not answer.", "Is it running? Try again in a moment.");
  }
  if (abort.signal.aborted) return null;
  if (slot && slots.get(slot) === abort) slots.delete(slot);
  if (answer.ok) return found;
  const error = found.error ?? {};
  throw new Problem(error.kind ?? "unavailable", error.message ?? `Status ${answer.status}`, error.fix);
}

const SESSION = "search-session";

/** An anonymous visitor's session: random, for this tab alone. */
export function session() {
  let id = sessionStorage.getItem(SESSION);
  if (!id) {
    id = crypto.randomUUID().replaceAll("-", "");
    sessionStorage.setItem(SESSION, id);
  }
  return id;
}

/** `user`, or this tab's session: what personal requests carry. */
export const whose = (user) => (user ? { user } : { session: session() });
