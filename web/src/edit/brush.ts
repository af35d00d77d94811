/** The brush: its size, a share of the picture's shorter side, and whether it erases. */

import { signal } from "@preact/signals";

export const SIZES = { least: 0.02, most: 0.6, step: 0.02 } as const;

export const size = signal(0.2);
export const erasing = signal(false);

/** In pixels of the picture; at least one of them is painted. */
export function radiusOf({ width, height }: { width: number; height: number }): number {
  return Math.max(0.5, (size.value * Math.min(width, height)) / 2);
}

export function resize(steps: number): void {
  const to = Math.round((size.value + steps * SIZES.step) / SIZES.step) * SIZES.step;
  size.value = Math.min(SIZES.most, Math.max(SIZES.least, to));
}
