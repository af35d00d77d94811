/** Jobs as the page shows them: a report of the server, and what its events have told since. */

import { effect, signal } from "@preact/signals";
import { ApiError, ask, eventsOf, key } from "./api";
import { type Parts, formOf } from "./edit/given";
import type {
  Body,
  Check,
  Choice,
  Failure,
  JobEvent,
  JobReport,
  PictureAt,
  PictureReport,
  PlannedStep,
  Routed,
} from "./types";

export interface Step extends PlannedStep {
  state: "waiting" | "running" | "done";
  share: number;
}

/** One picture that was tried on the way to the one that is kept. */
export interface Round {
  recipe: string;
  why: string;
  steps: Step[];
  looking: boolean;
  check: Check | null;
}

export interface Pic {
  rounds: Round[];
  ended: string;
  preview: string;
  previews: number;
  picture: PictureAt | null;
}

export interface Job {
  id: string;
  report: JobReport;
  routed: Routed | null;
  pics: Pic[];
  lost: Failure | null;
}

const EMPTY: Pic = { rounds: [], ended: "", preview: "", previews: 0, picture: null };

export const jobs = signal<ReadonlyMap<string, Job>>(new Map());
const following = new Map<string, AbortController>();

// Another key sees other jobs: nothing of the one before may stay.
effect(() => {
  void key.value;
  for (const control of following.values()) control.abort();
  following.clear();
  jobs.value = new Map();
});

export function isOpen(job: Job): boolean {
  return job.report.state === "queued" || job.report.state === "running";
}

function put(job: Job): void {
  jobs.value = new Map(jobs.value).set(job.id, job);
}

function change(id: string, to: (job: Job) => Job): void {
  const job = jobs.value.get(id);
  if (job) put(to(job));
}

/** Accept a request as a job, and follow it. parts: the picture that it changes. Throws `ApiError`. */
export async function submit(body: Body, parts?: Parts): Promise<Job> {
  if (!parts) return taken(await ask<JobReport>("v1/jobs", { body }));
  const headers = { prefer: "respond-async" };
  return taken(await ask<JobReport>("v1/images/edits", { form: formOf(body, parts), headers }));
}

/** A job that was just accepted: it is followed from now on. */
export function taken(report: JobReport): Job {
  const job = jobOf(report);
  put(job);
  void follow(job.id);
  return job;
}

/** A job by its id; followed while it is open. Throws `ApiError`. */
export async function open(id: string): Promise<void> {
  if (following.has(id)) return;
  const known = jobs.value.get(id);
  if (known && !isOpen(known) && known.report.result !== undefined) return;
  const asked_with = key.value;
  const job = jobOf(await ask<JobReport>(`v1/jobs/${encodeURIComponent(id)}`));
  if (key.value !== asked_with) return;
  put(job);
  if (isOpen(job)) void follow(id);
}

export async function cancel(id: string): Promise<void> {
  const report = await ask<JobReport>(`v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });
  change(id, (job) => ({ ...job, report: { ...job.report, ...report } }));
}

async function follow(id: string): Promise<void> {
  if (following.has(id)) return;
  const control = new AbortController();
  following.set(id, control);
  try {
    for await (const event of eventsOf(id, control.signal)) change(id, (job) => advanced(job, event));
    if (control.signal.aborted) return;
    const report = await ask<JobReport>(`v1/jobs/${encodeURIComponent(id)}`, { signal: control.signal });
    change(id, (job) => ended(job, report));
  } catch (error) {
    if (control.signal.aborted) return;
    const failure = error instanceof ApiError ? error.failure : { message: String(error), code: null };
    change(id, (job) => ({ ...job, lost: failure }));
  } finally {
    if (following.get(id) === control) following.delete(id);
  }
}

export function jobOf(report: JobReport): Job {
  const pics = Array.from({ length: report.n }, () => EMPTY);
  return ended({ id: report.id, report, routed: null, pics, lost: null }, report);
}

/** What is known once more of it is: pictures by their place, and how they came to be if no event told it. */
function ended(job: Job, report: JobReport): Job {
  const told = report.result?.x_triptych.pictures ?? [];
  const pics = job.pics.map((pic, index) => {
    const picture = report.pictures.find((one) => one.index === index) ?? pic.picture;
    const place = report.pictures.findIndex((one) => one.index === index);
    const facts = told[place];
    const rounds = facts && !pic.rounds.length ? roundsOf(facts) : pic.rounds.map(closed);
    return { ...pic, picture, rounds: report.result ? rounds : pic.rounds, ended: facts ? endOf(facts) : pic.ended };
  });
  return { ...job, report, pics };
}

function closed(round: Round): Round {
  return { ...round, looking: false, steps: round.steps.map((step) => ({ ...step, state: "done", share: 1 })) };
}

function roundsOf(facts: PictureReport): Round[] {
  const done = facts.steps.map((step) => ({ ...step, inputs: [], state: "done" as const, share: 1 }));
  if (!facts.checks.length) return [{ recipe: facts.recipe, why: "", steps: done, looking: false, check: null }];
  const tries = facts.choices.filter((choice) => choice.action === "retry" || choice.action === "escalate");
  return facts.checks.map((check, place) => {
    const kept = check.recipe === facts.recipe && check.seed === facts.seed;
    const why = place ? whyOf(tries[place - 1]) : "";
    return { recipe: check.recipe, why, steps: kept ? done : [], looking: false, check };
  });
}

function endOf(facts: PictureReport): string {
  const last = facts.choices.at(-1);
  if (!last || last.action === "check") return "";
  return last.action === "keep" ? `not looked at: ${last.reason}` : last.reason;
}

function whyOf(choice: Choice | undefined): string {
  if (!choice) return "";
  return `${choice.action === "retry" ? "again, with another seed" : "another recipe"}: ${choice.reason}`;
}

/** The job after an event. */
export function advanced(job: Job, event: JobEvent): Job {
  switch (event.type) {
    case "job.routed": {
      const first = roundFor(event.recipe, "", event.steps);
      const pics = job.pics.map((pic) => (pic.picture ? pic : { ...pic, rounds: [first], ended: "" }));
      return { ...job, routed: event, pics, report: { ...job.report, recipe: event.recipe } };
    }
    case "job.step":
      return running(onPic(job, event.index, (pic) => stepped(pic, event.step, event.done, event.total)));
    case "job.check":
      return onPic(job, event.index, (pic) =>
        onLast(pic, (round) => ({ ...closed(round), check: event })),
      );
    case "job.choice":
      return onPic(job, event.index, (pic) => {
        if (event.action === "retry" || event.action === "escalate") {
          return { ...pic, rounds: [...pic.rounds, roundFor(event.recipe, whyOf(event), event.steps)] };
        }
        if (event.action === "check") return onLast(pic, (round) => ({ ...round, looking: true }));
        const ended = event.action === "keep" ? `not looked at: ${event.reason}` : event.reason;
        return { ...pic, ended };
      });
    case "job.preview":
      return onPic(job, event.index, (pic) => ({
        ...pic,
        preview: `data:${event.media_type};base64,${event.b64_json}`,
        previews: pic.previews + 1,
      }));
    case "job.picture":
      return onPic(job, event.index, (pic) => ({ ...pic, picture: event, rounds: pic.rounds.map(closed) }));
    case "job.done":
      return { ...job, report: { ...job.report, state: "done" } };
    case "job.failed":
      return { ...job, report: { ...job.report, state: "failed", error: event.error } };
    case "job.cancelled":
      return { ...job, report: { ...job.report, state: "cancelled" } };
  }
}

function running(job: Job): Job {
  return job.report.state === "queued" ? { ...job, report: { ...job.report, state: "running" } } : job;
}

function onPic(job: Job, index: number, to: (pic: Pic) => Pic): Job {
  return { ...job, pics: job.pics.map((pic, place) => (place === index ? to(pic) : pic)) };
}

function onLast(pic: Pic, to: (round: Round) => Round): Pic {
  return { ...pic, rounds: pic.rounds.map((round, place) => (place === pic.rounds.length - 1 ? to(round) : round)) };
}

function roundFor(recipe: string, why: string, steps: readonly PlannedStep[]): Round {
  const waiting = steps.map((step) => ({ ...step, state: "waiting" as const, share: 0 }));
  return { recipe, why, steps: waiting, looking: false, check: null };
}

function stepped(pic: Pic, id: string, done: number, total: number): Pic {
  if (id.startsWith("verify-")) return onLast(pic, (round) => ({ ...round, looking: round.check === null }));
  return onLast(pic, (round) => ({
    ...round,
    steps: round.steps.map((step) => {
      if (step.id !== id) return step;
      const over = total === 1 && done === 1;
      return { ...step, state: over ? "done" : "running", share: Math.max(step.share, done / Math.max(1, total)) };
    }),
  }));
}

/** 0 .. 1 of the steps of a picture's present round. */
export function progressOf(pic: Pic): number {
  if (pic.picture) return 1;
  const steps = pic.rounds.at(-1)?.steps ?? [];
  return steps.length ? steps.reduce((sum, step) => sum + step.share, 0) / steps.length : 0;
}
