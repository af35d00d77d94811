/** What is asked for again and again while it is looked at. */

import { useEffect, useState } from "preact/hooks";
import { ApiError, ask, key } from "../api";
import type { Failure } from "../types";

export interface Polled<T> {
  data: T | null;
  failure: Failure | null;
  /** The server has no such endpoint. */
  missing: boolean;
  again: () => void;
}

export function usePolled<T>(path: string, every_ms: number): Polled<T> {
  const [data, setData] = useState<T | null>(null);
  const [failure, setFailure] = useState<ApiError | null>(null);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    // Another key may see less.
    setData(null);
    setFailure(null);
  }, [key.value]);
  useEffect(() => {
    const control = new AbortController();
    let timer = 0;
    let begun = 0;
    let waits_for_sight = false;
    const later = (wait_ms: number) => (timer = window.setTimeout(() => void load(), wait_ms));
    const load = async () => {
      // Nobody looks: it is asked for again as soon as somebody does.
      if (document.visibilityState !== "visible") {
        waits_for_sight = true;
        return;
      }
      const mine = ++begun;
      let wait_ms = every_ms;
      try {
        const found = await ask<T>(path, { signal: control.signal });
        if (control.signal.aborted || mine !== begun) return;
        setData(found);
        setFailure(null);
      } catch (error) {
        if (control.signal.aborted || mine !== begun) return;
        const told = error instanceof ApiError ? error : new ApiError(0, { message: String(error), code: null });
        setFailure(told);
        wait_ms = waitAfter(told, every_ms);
      }
      if (wait_ms) later(wait_ms);
    };
    const seen = () => {
      if (document.visibilityState !== "visible" || !waits_for_sight) return;
      waits_for_sight = false;
      void load();
    };
    document.addEventListener("visibilitychange", seen);
    void load();
    return () => {
      document.removeEventListener("visibilitychange", seen);
      control.abort();
      clearTimeout(timer);
    };
  }, [path, every_ms, turn, key.value]);
  const missing = failure?.status === 404 && failure.failure.code === "unknown_url";
  return { data, failure: failure?.failure ?? null, missing, again: () => setTurn((one) => one + 1) };
}

const REFUSED_MS = 15_000;

/** When to ask again after a failure: never where a key is missing, which has to be entered first. What was not there,
    was too much or did not answer may be there later, so it is asked for, less often. */
function waitAfter(error: ApiError, every_ms: number): number {
  if (error.status === 401 || error.status === 403) return 0;
  if (error.retryAfter) return Math.max(error.retryAfter * 1000, every_ms);
  if (error.status === 0 || error.status >= 500) return every_ms || REFUSED_MS;
  return every_ms ? REFUSED_MS : 0;
}
