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
    const control = new AbortController();
    let timer = 0;
    const load = async () => {
      if (document.visibilityState === "visible") {
        try {
          const found = await ask<T>(path, { signal: control.signal });
          if (control.signal.aborted) return;
          setData(found);
          setFailure(null);
        } catch (error) {
          if (control.signal.aborted) return;
          setFailure(error instanceof ApiError ? error : new ApiError(0, { message: String(error), code: null }));
          // What is refused stays refused until something is changed; what did not answer may come back.
          if (error instanceof ApiError && error.status !== 0 && error.status < 500) return;
        }
      }
      if (every_ms) timer = window.setTimeout(() => void load(), every_ms);
    };
    void load();
    return () => {
      control.abort();
      clearTimeout(timer);
    };
  }, [path, every_ms, turn, key.value]);
  const missing = failure?.status === 404 && failure.failure.code === "unknown_url";
  return { data, failure: failure?.failure ?? null, missing, again: () => setTurn((one) => one + 1) };
}
