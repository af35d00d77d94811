/** Make: say it, see how it would be made, see it being made, keep it. */

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { key, wordsOf } from "../api";
import { rememberBefore } from "../edit/before";
import { Dropping } from "../edit/chooser";
import { Easel } from "../edit/easel";
import { type Parts, folded, given, partsOf, strength } from "../edit/given";
import { isOpen, jobs, open, submit } from "../jobs";
import { loadModels } from "../models";
import { bodyOf, comparing, form, narrow, show, shown, ticked, view } from "../settings";
import type { Body } from "../types";
import { Ask } from "./ask";
import { History, entries, remember, reload } from "./history";
import { problem } from "./problem";
import { Recipes } from "./recipes";
import { Stage } from "./stage";
import { Why } from "./why";

const unopened = signal(""); // why a job that is to be shown cannot be
export const sending = signal(false);

/** Send what the form says, once, or once for each recipe that is ticked, with one seed. */
export async function make(): Promise<void> {
  if (!form.value.prompt.trim()) return;
  const body: Body = { ...bodyOf(form.value), partial_images: 3 };
  if (given.value && strength.value !== null) body.strength = strength.value;
  const parts = given.value ? await partsOf(given.value).catch(tell) : undefined;
  if (given.value && !parts) return;
  if (!comparing.value) return send([body], parts ?? undefined);
  const seed = body.seed ?? Math.floor(Math.random() * 2 ** 31);
  const model = body.model ?? "auto";
  await send(ticked.value.map((recipe) => ({ ...body, model, recipe, seed })), parts ?? undefined);
}

function tell(error: unknown): void {
  problem.value = wordsOf(error);
}

/** parts: the files of an edit;   before: the picture that is changed, where the requests name it */
export async function send(bodies: readonly Body[], parts?: Parts, before = parts?.image): Promise<void> {
  sending.value = true;
  problem.value = "";
  const made: string[] = [];
  try {
    for (const body of bodies) {
      const job = await submit(body, parts);
      if (before) rememberBefore(job.id, before);
      made.push(job.id);
      remember(job.report);
    }
  } catch (error) {
    tell(error);
  } finally {
    sending.value = false;
    if (made.length) {
      folded.value = true;
      show(made); // all at once: each has its place from the beginning
      inView();
    }
  }
}

/** On a narrow page the pictures are below, or, while one is changed, above: go there. */
function inView(): void {
  const wall = document.querySelector(".wall");
  if (!wall) return;
  const { top } = wall.getBoundingClientRect();
  if (top < innerHeight / 2 && (top >= 0 || !narrow.value)) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  wall.scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
}

export function Make() {
  const ids = shown.value;
  useEffect(() => {
    loadModels().catch(tell);
    void reload().then(() => {
      // Come back in the middle of a job, it is where one left it.
      const running = entries.value.filter((one) => one.state === "queued" || one.state === "running");
      if (view.value === "make" && !shown.value.length && running[0]) show([running[0].id]);
    });
  }, [key.value]);
  useEffect(() => {
    unopened.value = "";
    for (const id of ids) open(id).catch((error: unknown) => (unopened.value = wordsOf(error)));
  }, [ids.join(), key.value]);
  const editing = given.value;
  const desk = (
    <section key="desk" class="desk" aria-label="What to make">
      <Ask />
      <Recipes />
      <Why />
    </section>
  );
  const wall = (
    <section key="wall" class="wall" aria-label="Pictures">
      <p class="problem" role="alert">
        {problem.value || unopened.value}
      </p>
      {editing && !folded.value ? <Easel of={editing} /> : <Stage />}
    </section>
  );
  return (
    <div class={editing ? "make editing" : "make"}>
      <h1 class="unseen">Make pictures</h1>
      {/* Where there is one column, the picture that is painted on comes first. */}
      {editing && narrow.value ? [wall, desk] : [desk, wall]}
      <History />
      <p class="unseen" role="status">
        {ids.map((id) => spoken(id)).join(" ")}
      </p>
      <Dropping />
    </div>
  );
}

function spoken(id: string): string {
  const job = jobs.value.get(id);
  if (!job) return "";
  const { state, recipe } = job.report;
  if (isOpen(job)) return state === "queued" ? "Waiting." : `Being made with ${recipe ?? "a recipe"}.`;
  if (state === "failed") return `It failed. ${job.report.error?.message ?? ""}`;
  return state === "done" ? `Done: ${job.report.prompt ?? ""}.` : "Cancelled.";
}
