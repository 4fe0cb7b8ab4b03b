// The calls to the service, and what went wrong in words.

import { credentials } from "./access.js";

export class Offline extends Error {}

// No token was sent, or one that is not known.
export class Locked extends Error {}

export class Refused extends Error {
  constructor(status, text, retryAfter_s) {
    super(text);
    this.status = status;
    this.retryAfter_s = retryAfter_s;
  }
}

const WORDS = {
  404: "The service knows no such model or page.",
  413: "The picture is too large for this service.",
  429: "The service has too much to do at the moment.",
  500: "The service failed on this request.",
  502: "The proxy in front of the service cannot reach it.",
  503: "The service is starting or shutting down.",
  504: "The answer took too long.",
};

// Nobody is there, or not yet.
const AWAY = [502, 503];

// Of a proxy, or of a network that wants people to sign in first.
const STRANGER = "What answers is not the service.";

async function refusal(response) {
  const content = await response.json().catch(() => null);
  const inPlace = content?.predictions?.find((prediction) => prediction.error)?.error;
  const text = inPlace || (typeof content?.error === "string" ? content.error : null);
  // It is tried again, with another number each time.
  const id = response.status >= 500 && !AWAY.includes(response.status) && response.headers.get("x-request-id");
  const words = text || WORDS[response.status] || `The service answered with status ${response.status}.`;
  return new Refused(response.status, id ? `${words} (request ${id})` : words, Number(response.headers.get("retry-after")));
}

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...credentials() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Offline("The service does not answer.", { cause: error });
  }
  if (AWAY.includes(response.status)) throw new Offline((await refusal(response)).message);
  if (response.status === 401) throw new Locked((await refusal(response)).message);
  if (!response.ok) throw await refusal(response);
  return response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Offline(STRANGER, { cause: error });
  });
}

const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value != null)).toString();

export async function listModels() {
  const service = await call("models");
  if (!Array.isArray(service?.models)) throw new Offline(STRANGER);
  if (!service.models.length) throw new Offline("The service has no network loaded yet.");
  return service;
}

export const describeInterface = () => call("openapi.json");

export async function predict(blob, model, signal) {
  const started = performance.now();
  const path = `predict?${query({ model, include: "input" })}`;
  const answer = await call(path, { method: "POST", body: blob, headers: { "content-type": blob.type || "application/octet-stream" }, signal });
  const prediction = answer?.predictions?.[0];
  if (!prediction || !answer.model) throw new Offline(STRANGER);
  if (prediction.error) throw new Refused(422, prediction.error);
  return { model: answer.model, prediction, took_ms: performance.now() - started };
}

export const describe = (model) => call(`explain?${query({ model })}`);

export function explain(blob, model, include, signal) {
  const headers = { "content-type": blob.type || "application/octet-stream" };
  return call(`explain?${query({ model, include })}`, { method: "POST", body: blob, headers, signal });
}

export async function isAlive() {
  try {
    return (await fetch("readyz", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

export function floats(base64) {
  const text = atob(base64);
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}
