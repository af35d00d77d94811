/** Numbers as people read them. */

export function seconds(value: number): string {
  const whole = Math.round(value);
  const minutes = Math.round(whole / 60);
  if (minutes >= 90) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  if (whole >= 90) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${value >= 9.95 ? whole : value >= 0.995 ? value.toFixed(1) : value.toFixed(2)} s`;
}

/** A quality from 0 to 1: two digits, and nothing is less than nothing. */
export function two(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : (Math.round(value * 100) / 100 || 0).toFixed(2);
}

export function dollars(value: number): string {
  if (value === 0) return "$0";
  const digits = value >= 1 ? 2 : Math.min(9, 1 - Math.floor(Math.log10(value)));
  return `$${value.toFixed(digits)}`;
}

export function share(value: number): string {
  const percent = value * 100;
  if (percent > 0 && percent < 1) return "< 1 %";
  if (percent < 100 && percent > 99) return "> 99 %";
  return `${percent.toFixed(0)} %`;
}

export function when(unix_s: number): string {
  const date = new Date(unix_s * 1000);
  const today = new Date().toDateString() === date.toDateString();
  const time = date.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  return today ? time : `${date.toLocaleDateString(undefined, { day: "numeric", month: "short" })}, ${time}`;
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

const DOING: Record<string, string> = {
  generate: "draws",
  inpaint: "paints",
  paste: "lays it over",
  denoise: "draws",
  refine: "refines",
  edit: "edits",
  control: "traces",
  upscale: "enlarges",
  score: "looks",
  select: "picks the best",
  blend: "blends",
};

const GIVEN: Record<string, string> = {
  image: "your picture",
  mask: "your mask",
  reference: "your reference",
};

/** "sdxl draws" of a step; of one that was given, what it is, which its name ends with ("1-given-mask"). */
export function doing({ id, kind, model }: { id: string; kind: string; model: string | null }): string {
  if (kind === "given") return GIVEN[id.slice(id.lastIndexOf("-") + 1)] ?? "your picture";
  const verb = DOING[kind] ?? kind;
  return model ? `${model} ${verb}` : verb;
}
