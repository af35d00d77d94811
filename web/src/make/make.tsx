/** Make: say it, see how it would be made, see it being made, keep it. */

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { key, wordsOf } from "../api";
import { isOpen, jobs, open, submit } from "../jobs";
import { bodyOf, comparing, form, show, shown, ticked, view } from "../settings";
import type { Body } from "../types";
import { Ask } from "./ask";
import { History, entries, remember, reload } from "./history";
import { Recipes } from "./recipes";
import { loadModels } from "./route";
import { Stage } from "./stage";
import { Why } from "./why";

export const problem = signal("");
const unopened = signal(""); // why a job that is to be shown cannot be
export const sending = signal(false);

/** Send what the form says, once, or once for each recipe that is ticked, with one seed. */
export async function make(): Promise<void> {
  if (!form.value.prompt.trim()) return;
  const body = { ...bodyOf(form.value), partial_images: 3 };
  if (!comparing.value) return send([body]);
  const seed = body.seed ?? Math.floor(Math.random() * 2 ** 31);
  const model = body.model ?? "auto";
  await send(ticked.value.map((recipe) => ({ ...body, model, recipe, seed })));
}

export async function send(bodies: readonly Body[]): Promise<void> {
  sending.value = true;
  problem.value = "";
  const made: string[] = [];
  try {
    for (const body of bodies) {
      const job = await submit(body);
      made.push(job.id);
      remember(job.report);
    }
  } catch (error) {
    problem.value = wordsOf(error);
  } finally {
    sending.value = false;
    if (made.length) {
      show(made); // all at once: each has its place from the beginning
      inView();
    }
  }
}

/** On a narrow page the pictures are below: go there. */
function inView(): void {
  const wall = document.querySelector(".wall");
  if (!wall || wall.getBoundingClientRect().top < innerHeight / 2) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  wall.scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
}

export function Make() {
  const ids = shown.value;
  useEffect(() => {
    loadModels().catch((error: unknown) => (problem.value = wordsOf(error)));
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
  return (
    <div class="make">
      <h1 class="unseen">Make pictures</h1>
      <section class="desk" aria-label="What to make">
        <Ask />
        <Recipes />
        <Why />
      </section>
      <section class="wall" aria-label="Pictures">
        <p class="problem" role="alert">
          {problem.value || unopened.value}
        </p>
        <Stage />
      </section>
      <History />
      <p class="unseen" role="status">
        {ids.map((id) => spoken(id)).join(" ")}
      </p>
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
