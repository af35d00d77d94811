/** What each style makes of one prompt and seed: drawn by `python -m benchmarks.styles.samples`. */

const FILES: Record<string, string> = import.meta.glob("./samples/*.png", {
  eager: true,
  query: "?url",
  import: "default",
});

/** The address of a style's sample, or of the picture without any (`plain`); undefined for styles of one's own. */
export function sampleOf(id: string): string | undefined {
  return FILES[`./samples/${id}.png`];
}
