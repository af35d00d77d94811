/** What `model` and `style` may be, as the server lists it. */

import { signal } from "@preact/signals";
import { ask } from "./api";
import type { Model } from "./types";

export const models = signal<Model[]>([]);

export async function loadModels(): Promise<void> {
  models.value = (await ask<{ data: Model[] }>("v1/models")).data;
}

/** The recipes of a policy, by the name that `model` takes. */
export function recipesOf(model: string): string[] {
  const policies = models.value.filter((one) => one.x_triptych.recipes);
  const found = model === "auto" ? policies[0] : policies.find((one) => one.id === model);
  return found?.x_triptych.recipes ?? [];
}
