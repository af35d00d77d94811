/** What the server would do with the prompt as it stands: asked for a moment after the last key. */

import { computed, effect, signal } from "@preact/signals";
import { ApiError, ask, key } from "../api";
import { bodyOf, form } from "../settings";
import type { Decision, Failure, Model } from "../types";

export const decision = signal<Decision | null>(null);
export const refusal = signal<Failure | null>(null);
export const deciding = signal(false);
export const models = signal<Model[]>([]);

const PAUSE_MS = 220;
const DRAWS = new Set(["generate", "denoise", "inpaint"]);

let control = new AbortController();
let timer = 0;

effect(() => {
  const body = bodyOf(form.value);
  void key.value;
  control.abort();
  clearTimeout(timer);
  if (!body.prompt.trim()) {
    decision.value = refusal.value = null;
    deciding.value = false;
    return;
  }
  control = new AbortController();
  deciding.value = true;
  timer = window.setTimeout(() => void decide(body, control.signal), PAUSE_MS);
});

async function decide(body: object, signal: AbortSignal): Promise<void> {
  try {
    const found = await ask<Decision>("v1/route", { body, signal });
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

/** Which models draw by each recipe, as decisions have told. */
const drawn = signal<Readonly<Record<string, readonly string[]>>>({});

effect(() => {
  const found = decision.value;
  if (!found) return;
  const by = found.plan.steps.filter((step) => DRAWS.has(step.kind) && step.model).map((step) => step.model!);
  drawn.value = { ...drawn.peek(), [`${found.policy}/${found.recipe}`]: [...new Set(by)] };
});

/** The models that will draw from noise, once a model or a recipe is chosen; none while the policy has the choice. */
export const drawing = computed<readonly string[]>(() => {
  const { model, recipe } = form.value;
  if (models.value.some((one) => one.id === model && one.x_triptych.kind === "model")) return [model];
  const policy = model === "auto" ? decision.value?.policy : model;
  return recipe && policy ? (drawn.value[`${policy}/${recipe}`] ?? []) : [];
});

export async function loadModels(): Promise<void> {
  models.value = (await ask<{ data: Model[] }>("v1/models")).data;
}

/** The recipes of a policy, by the name that `model` takes. */
export function recipesOf(model: string): string[] {
  const policies = models.value.filter((one) => one.x_triptych.recipes);
  const found = model === "auto" ? policies[0] : policies.find((one) => one.id === model);
  return found?.x_triptych.recipes ?? [];
}
