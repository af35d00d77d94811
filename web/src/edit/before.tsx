/** A picture as it was beside what was made of it, with a line between them to move. */

import { effect, signal } from "@preact/signals";
import { useState } from "preact/hooks";
import { key } from "../api";

interface Before {
  picture: Blob;
  /** Of the blob, in this browser. */
  url: string;
}

/** What each edit of this visit began with, by the job's id. */
export const originals = signal<ReadonlyMap<string, Before>>(new Map());
const MOST = 24; // pictures kept for comparison

effect(() => {
  void key.value;
  for (const { url } of originals.peek().values()) URL.revokeObjectURL(url);
  originals.value = new Map();
});

export function rememberBefore(id: string, picture: Blob): void {
  const kept = [...originals.value, [id, { picture, url: URL.createObjectURL(picture) }] as const];
  for (const [, { url }] of kept.slice(0, -MOST)) URL.revokeObjectURL(url);
  originals.value = new Map(kept.slice(-MOST));
}

interface Props {
  before: string;
  after: string;
  name: string;
  crisp: boolean;
  style: { width: string; height: string };
}

export function BeforeAfter({ before, after, name, crisp, style }: Props) {
  const [at, setAt] = useState(50); // percent from the left, up to which one sees it as it was
  const kind = crisp ? "crisp" : "";
  return (
    <div class="compared" style={{ width: style.width }}>
      <div class="pair" style={style}>
        <img class={kind} src={after} alt={name} style={style} />
        <img
          class={`was ${kind}`}
          src={before}
          alt={`${name}, before`}
          style={{ ...style, clipPath: `inset(0 ${100 - at}% 0 0)` }}
        />
        <span class="seam" aria-hidden="true" style={{ left: `${at}%` }} />
        <input
          type="range"
          aria-label={`Before and after of ${name}`}
          aria-valuetext={`${at} percent of it as it was`}
          min={0}
          max={100}
          value={at}
          onInput={(event) => setAt(Number(event.currentTarget.value))}
        />
      </div>
      <p class="small ends" aria-hidden="true">
        <span>before</span>
        <span>after</span>
      </p>
    </div>
  );
}
