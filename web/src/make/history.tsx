/** What was made before, from the server's store: it is there after a reload, and after the server's restart. */

import { effect, signal } from "@preact/signals";
import { ask, here, key, wordsOf } from "../api";
import { jobs } from "../jobs";
import { shown } from "../settings";
import type { JobReport } from "../types";
import { when } from "../words";
import { problem } from "./problem";

const PAGE = 24;

interface Listed {
  data: JobReport[];
  next_cursor: string | null;
}

export const entries = signal<readonly JobReport[]>([]);
const next = signal<string | null>(null);

// Another key has made other pictures.
effect(() => {
  void key.value;
  entries.value = [];
  next.value = null;
});

export async function reload(): Promise<void> {
  const asked_with = key.value;
  try {
    const page = await ask<Listed>(`v1/jobs?limit=${PAGE}`);
    if (key.value !== asked_with) return;
    entries.value = page.data;
    next.value = page.next_cursor;
  } catch {
    // said where something is asked for
  }
}

async function further(): Promise<void> {
  const asked_with = key.value;
  const page = await ask<Listed>(`v1/jobs?limit=${PAGE}&cursor=${encodeURIComponent(next.value ?? "")}`);
  if (key.value !== asked_with) return;
  const known = new Set(entries.value.map((one) => one.id));
  entries.value = [...entries.value, ...page.data.filter((one) => !known.has(one.id))];
  next.value = page.next_cursor;
}

export function remember(report: JobReport): void {
  entries.value = [report, ...entries.value.filter((one) => one.id !== report.id)];
}

export function History() {
  if (!entries.value.length) return null;
  return (
    <section class="history" aria-labelledby="earlier">
      <h2 id="earlier">Earlier</h2>
      <ul>
        {entries.value.map((entry) => (
          <Entry key={entry.id} entry={jobs.value.get(entry.id)?.report ?? entry} />
        ))}
      </ul>
      {next.value && (
        <button type="button" onClick={() => void further().catch((error: unknown) => (problem.value = wordsOf(error)))}>
          Show more
        </button>
      )}
    </section>
  );
}

const SIGNS: Record<string, string> = {
  queued: "waits",
  running: "is being made",
  failed: "failed",
  cancelled: "cancelled",
};

function Entry({ entry }: { entry: JobReport }) {
  const first = entry.pictures[0];
  const here_now = shown.value.includes(entry.id);
  return (
    <li>
      <a href={`#/jobs/${encodeURIComponent(entry.id)}`} aria-current={here_now ? "true" : undefined}>
        <span class="thumb">
          {first ? (
            <img
              class={Math.max(first.width, first.height) <= 160 ? "crisp" : ""}
              src={here(first.url)}
              alt=""
              width={128}
              height={128}
              loading="lazy"
            />
          ) : (
            <span class="small">{SIGNS[entry.state] ?? "not kept"}</span>
          )}
          {entry.n > 1 && <span class="count">{entry.n}</span>}
        </span>
        <span class="text">{entry.prompt ?? "(prompt not kept)"}</span>
        <span class="small">
          {entry.recipe ?? ""} {SIGNS[entry.state] && first ? SIGNS[entry.state] : ""} <span class="when">{when(entry.created_at)}</span>
        </span>
      </a>
    </li>
  );
}
