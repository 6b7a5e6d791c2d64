// The gateway's REST API: the session's cookie goes by itself, the token against cross-site requests by hand.

import { learn } from "./clock.js";

export class Refused extends Error {
  constructor(status, text, reason) {
    super(text);
    this.status = status;
    this.reason = reason;
  }
}

let csrf = "";
let signedOut = () => {};

export const onSignedOut = (tell) => void (signedOut = tell);
export const useCsrf = (token) => void (csrf = token);

/** The JSON of the answer, null where there is none. Throws Refused; status 0 = the gateway was not reached. */
export async function ask(method, path, body) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET") headers["X-CSRF-Token"] = csrf;
  if (method === "POST" && path.startsWith("/api/")) headers["Idempotency-Key"] = crypto.getRandomValues(new Uint32Array(4)).join("-");
  let response;
  const asked = Date.now();
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Refused(0, "", "not_reached");
  }
  learn(response.headers.get("Date"), asked, Date.now());
  const kind = response.headers.get("Content-Type") ?? "";
  const answer = kind.includes("json") ? await response.json().catch(() => null) : null;
  if (response.ok) return answer;
  if (response.status === 401 && path !== "/sign-in") signedOut();
  throw new Refused(response.status, answer?.detail ?? answer?.title ?? String(response.status), answer?.reason);
}

const at = (call, leg) => `/api/v1/calls/${encodeURIComponent(call)}${leg ? `/legs/${encodeURIComponent(leg)}` : ""}`;

const keys = (digits) => (digits ? { digits } : {});

/** What can be done to calls. digits: sent once the number has answered. */
export const commands = {
  place: (agent, number, digits) => ask("POST", "/api/v1/calls", { agent, number, ...keys(digits) }),
  endForAll: (call) => ask("DELETE", at(call)),
  add: (call, number, by, digits) => ask("POST", `${at(call)}/legs`, { number, by, ...keys(digits) }),
  change: (call, leg, what) => ask("PATCH", at(call, leg), what),
  remove: (call, leg) => ask("DELETE", at(call, leg)),
  hangUp: (call, leg) => ask("POST", `${at(call, leg)}/hangup`),
  answer: (call, leg) => ask("POST", `${at(call, leg)}/answer`),
  digits: (call, leg, digits) => ask("POST", `${at(call, leg)}/digits`, { digits }),
  consult: (call, leg, number, digits) => ask("POST", `${at(call, leg)}/consultation`, { number, ...keys(digits) }),
  transfer: (call, leg, number, digits) => ask("POST", `${at(call, leg)}/transfer`, { number, ...keys(digits) }),
  merge: (call) => ask("POST", `${at(call)}/consultation/merge`),
  completeTransfer: (call) => ask("POST", `${at(call)}/consultation/transfer`),
  back: (call) => ask("DELETE", `${at(call)}/consultation`),
  supervise: (call, leg, number, mode) => ask("POST", `${at(call, leg)}/supervisors`, { number, mode }),
  chooseState: (login, state, reason) =>
    ask("PUT", `/api/v1/agents/${encodeURIComponent(login)}/state`, reason ? { state, reason } : { state }),
};
