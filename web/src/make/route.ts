/** What the server would do with the prompt as it stands: asked for a moment after the last key. */

import { computed, effect, signal } from "@preact/signals";
import { ApiError, ask, key } from "../api";
import { type Given, formOf, given, painted, standInsOf, strength } from "../edit/given";
import { models } from "../models";
import { bodyOf, form } from "../settings";
import type { Body, Decision, Failure } from "../types";

export const decision = signal<Decision | null>(null);
export const refusal = signal<Failure | null>(null);
export const deciding = signal(false);

const PAUSE_MS = 220;
const DRAWS = new Set(["generate", "denoise", "edit", "inpaint"]);

let control = new AbortController();
let timer = 0;

effect(() => {
  const body = bodyOf(form.value);
  const picture = given.value;
  if (picture && strength.value !== null) body["strength"] = strength.value;
  void key.value;
  void painted.value;
  control.abort();
  clearTimeout(timer);
  if (!body.prompt.trim()) {
    decision.value = refusal.value = null;
    deciding.value = false;
    return;
  }
  control = new AbortController();
  deciding.value = true;
  timer = window.setTimeout(() => void decide(body, picture, control.signal), PAUSE_MS);
});

async function decide(body: Body, picture: Given | null, signal: AbortSignal): Promise<void> {
  try {
    const call = picture ? { form: formOf(body, await standInsOf(picture)) } : { body };
    const found = await ask<Decision>("v1/route", { ...call, signal });
    if (signal.aborted) return;
    decision.value = found;
    refusal.value = null;
  } catch (error) {
    if (signal.aborted) return;
    refusal.value = error instanceof ApiError ? error.failure : { message: String(error), code: null };
    if (refusal.value.rejected) decision.value = null;
  }
  deciding.value = false;
}

/** What was decided on the form as it stands, once that is known; null where it was refused, or nothing is asked. */
export async function decided(): Promise<Decision | null> {
  await new Promise<void>((resolve) => {
    const stop = effect(() => {
      if (deciding.value) return;
      queueMicrotask(() => stop());
      resolve();
    });
  });
  return decision.value;
}

/** Which models draw by each recipe, as decisions have told. */
const drawn = signal<Readonly<Record<string, readonly string[]>>>({});

effect(() => {
  const found = decision.value;
  if (!found) return;
  const by = found.plan.steps.filter((step) => DRAWS.has(step.kind) && step.model).map((step) => step.model!);
  if (by.length) drawn.value = { ...drawn.peek(), [`${found.policy}/${found.recipe}`]: [...new Set(by)] };
});

/** The models that will draw from noise, once a model or a recipe is chosen; none while the policy has the choice. */
export const drawing = computed<readonly string[]>(() => {
  const { model, recipe } = form.value;
  if (models.value.some((one) => one.id === model && one.x_triptych.kind === "model")) return [model];
  const policy = model === "auto" ? decision.value?.policy : model;
  return recipe && policy ? (drawn.value[`${policy}/${recipe}`] ?? []) : [];
});
