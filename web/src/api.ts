/** Calls to the server that this page came from. The key lives in this tab only. */

import { signal } from "@preact/signals";
import type { Failure, JobEvent } from "./types";

const BASE = new URL(".", document.baseURI);
const KEY = "triptych-key";

export const key = signal(sessionStorage.getItem(KEY) ?? "");
export const keyWanted = signal<string | null>(null);

export function setKey(text: string): void {
  key.value = text.trim();
  if (key.value) sessionStorage.setItem(KEY, key.value);
  else sessionStorage.removeItem(KEY);
  keyWanted.value = null;
}

/** A failure in the server's words, which say what, where and the remedy. status 0: no answer at all. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly failure: Failure,
    readonly retryAfter: number | null = null,
  ) {
    super(failure.message);
  }
}

export function wordsOf(error: unknown): string {
  if (error instanceof ApiError && error.retryAfter !== null) {
    return `${error.message} Try again in ${error.retryAfter} s.`;
  }
  return error instanceof Error ? error.message : String(error);
}

export interface Call {
  method?: string;
  body?: unknown;
  text?: string;
  form?: FormData;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

async function send(path: string, call: Call): Promise<Response> {
  const headers: Record<string, string> = { accept: "application/json", ...call.headers };
  const used = key.value;
  if (key.value) headers["authorization"] = `Bearer ${key.value}`;
  if (call.body !== undefined) headers["content-type"] = "application/json";
  if (call.text !== undefined) headers["content-type"] = "application/yaml";
  let answer: Response;
  try {
    answer = await fetch(new URL(path, BASE), {
      method: call.method ?? (call.body !== undefined || call.text !== undefined || call.form ? "POST" : "GET"),
      headers,
      body: call.form ?? call.text ?? (call.body === undefined ? null : JSON.stringify(call.body)),
      signal: call.signal ?? null,
      cache: "no-store",
    });
  } catch (error) {
    if (call.signal?.aborted) throw error;
    const message = "The server does not answer. See whether it still runs; this page tries again by itself.";
    throw new ApiError(0, { message, code: "unreachable" });
  }
  if (answer.ok) return answer;
  const failure = await failureOf(answer);
  if (answer.status === 401 && key.value === used) keyWanted.value = failure.message; // else another was entered since
  const after = answer.headers.get("retry-after");
  throw new ApiError(answer.status, failure, after === null ? null : Number(after));
}

async function failureOf(answer: Response): Promise<Failure> {
  try {
    const told = (await answer.json()) as { error?: Failure };
    if (told.error) return told.error;
  } catch {
    // not of ours: a proxy before the server
  }
  const why = answer.status === 413 ? "what was sent is too large for it; choose a smaller picture" : "it does not say why";
  return { message: `The server, or a proxy before it, answered ${answer.status}: ${why}.`, code: null };
}

export async function ask<T>(path: string, call: Call = {}): Promise<T> {
  return (await (await send(path, call)).json()) as T;
}

/** Where a picture is, on this server whatever name it has for itself. */
export function here(url: string): string {
  const at = url.indexOf("/v1/images/");
  return at < 0 ? url : new URL(url.slice(at + 1), BASE).href;
}

/** What happens to a job until it ends; over broken connections, from where it stopped. Throws what is no use to retry. */
export async function* eventsOf(id: string, signal: AbortSignal): AsyncGenerator<JobEvent> {
  let last = "";
  let wait_ms = 500;
  for (;;) {
    try {
      const headers: Record<string, string> = { accept: "text/event-stream" };
      if (last) headers["last-event-id"] = last;
      const answer = await send(`v1/jobs/${id}/events`, { headers, signal });
      if (answer.status === 204 || !answer.body) return;
      for await (const block of blocksOf(answer.body)) {
        wait_ms = 500;
        const lines = block.split("\n");
        last = lines.find((line) => line.startsWith("id: "))?.slice(4) ?? last;
        const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
        if (!data.length) continue;
        const event = JSON.parse(data.join("\n")) as JobEvent | { error: Failure };
        if (!("type" in event)) throw new ApiError(500, event.error);
        yield event;
        if (event.type === "job.done" || event.type === "job.failed" || event.type === "job.cancelled") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.status !== 0 && error.status < 500) throw error;
    }
    await new Promise((done) => setTimeout(done, wait_ms));
    wait_ms = Math.min(wait_ms * 2, 8000);
    if (signal.aborted) return;
  }
}

async function* blocksOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>).getReader();
  let kept = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      kept += value;
      const blocks = kept.split("\n\n");
      kept = blocks.pop() ?? "";
      yield* blocks;
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}
