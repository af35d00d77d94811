/** Which styles go with what is chosen, and why others do not. */

import type { Model } from "../types";

export const MOST = 4; // worn at once, as the server has it

export interface Style {
  id: string;
  description: string;
  family: string;
  kind: string;
  least: number;
  most: number;
  /** Whether a weight between none and all means something. */
  blends: boolean;
  /** Whether several of its kind go together. */
  many: boolean;
  worn_by: readonly string[];
}

export function stylesOf(models: readonly Model[]): Style[] {
  return models
    .filter((one) => one.x_triptych.kind === "style")
    .map(({ id, x_triptych: of }) => ({
      id,
      description: of.description ?? "",
      family: of.family ?? "",
      kind: of.style_kind ?? "style",
      least: of.weights?.[0] ?? 0,
      most: of.weights?.[1] ?? 1,
      blends: of.blends ?? true,
      many: of.many ?? true,
      worn_by: of.worn_by ?? [],
    }));
}

/** Why a style cannot be put on beside those that are worn; "" if it can.
    drawing: the models that draw from noise, as far as they are settled; none are: the policy chooses. */
export function unfit(
  style: Style,
  worn: Readonly<Record<string, number>>,
  all: readonly Style[],
  drawing: readonly string[],
  models: readonly Model[],
): string {
  const not = drawing.find((model) => !style.worn_by.includes(model));
  if (not !== undefined) {
    const family = models.find((one) => one.id === not)?.x_triptych.family;
    return family && family !== style.family ? `for ${style.family}; ${not} is ${family}` : `${not} cannot wear it`;
  }
  if (style.id in worn) return "";
  if (!style.many) {
    const other = all.find((one) => one.id in worn && one.kind === style.kind);
    if (other) return `instead of ${other.id} only`;
  }
  return Object.keys(worn).length >= MOST ? `${MOST} are worn, which is the most` : "";
}

export function named(kind: string): string {
  return kind === "lora" ? "LoRA" : kind.replaceAll("_", " ");
}
