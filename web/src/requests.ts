/** Requests that were made before, to be made again or to be changed: what is of the picture, and what was of that call. */

import type { Body } from "./types";

/** How a call is answered, and who asked: nothing that a picture depends on. */
const OF_THE_CALL = new Set([
  "stream",
  "partial_images",
  "response_format",
  "webhook",
  "user",
  "safety_identifier",
]);

/** What the form shows in fields of its own. */
const IN_THE_FORM = new Set([
  "prompt",
  "model",
  "recipe",
  "negative_prompt",
  "n",
  "size",
  "seed",
  "output_format",
  "steps",
  "guidance_scale",
  "style",
]);

/** The same pictures, asked for by this page. */
export function again(body: Body): Body {
  return Object.fromEntries(
    Object.entries(body).filter(([name, value]) => value !== null && !OF_THE_CALL.has(name)),
  ) as Body;
}

/** What a request has beside the fields of the form. How a search was resolved is left out: it was of that prompt. */
export function furtherOf(body: Body): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(again(body)).filter(([name]) => !IN_THE_FORM.has(name) && name !== "turns"),
  );
}

/** Ids of `#/jobs/a,b`; none where the address is not one of this page's. */
export function jobsIn(place: string): string[] {
  const match = /^\/jobs\/(.+)$/.exec(place);
  if (!match) return [];
  return match[1]!.split(",").flatMap((part) => {
    try {
      return [decodeURIComponent(part)];
    } catch {
      return []; // half of an escape: somebody shortened the address
    }
  });
}

/** A map that was kept in a browser; empty if what is there is no such thing. */
export function mapKept(text: string | null): Record<string, string> {
  try {
    const found: unknown = JSON.parse(text ?? "{}");
    if (typeof found !== "object" || found === null || Array.isArray(found)) return {};
    return Object.fromEntries(Object.entries(found).filter(([, value]) => typeof value === "string"));
  } catch {
    return {};
  }
}
