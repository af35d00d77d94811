/** What stands in the form, the theme, and where in the page one is. */

import { computed, effect, signal } from "@preact/signals";
import { furtherOf, jobsIn } from "./requests";
import type { Body } from "./types";

export interface Form {
  prompt: string;
  model: string;
  recipe: string;
  negative: string;
  n: number;
  size: string;
  seed: string;
  format: string;
  steps: string;
  guidance: string;
  /** Styles by their ids, with weights. */
  style: Record<string, number>;
  /** Of a past request, what has no field here. */
  further: Record<string, unknown>;
}

const BLANK: Form = {
  prompt: "",
  model: "auto",
  recipe: "",
  negative: "",
  n: 1,
  size: "",
  seed: "",
  format: "png",
  steps: "",
  guidance: "",
  style: {},
  further: {},
};
const DRAFT = "triptych-draft";

function kept(): Form {
  try {
    return { ...BLANK, ...(JSON.parse(sessionStorage.getItem(DRAFT) ?? "{}") as Partial<Form>) };
  } catch {
    return BLANK;
  }
}

export const form = signal<Form>(kept());
effect(() => sessionStorage.setItem(DRAFT, JSON.stringify(form.value)));

export function edit(change: Partial<Form>): void {
  form.value = { ...form.value, ...change };
}

/** The form as a request; what stands empty is left to the server. */
export function bodyOf(of: Form): Body {
  const body: Body = { ...of.further, prompt: of.prompt, model: of.model, n: of.n };
  if (of.recipe) body.recipe = of.recipe;
  if (of.negative.trim()) body.negative_prompt = of.negative;
  if (of.size.trim()) body.size = of.size.trim().replace(/\s*[×xX]\s*/, "x");
  if (of.seed.trim()) body.seed = Number(of.seed);
  if (of.format !== "png") body.output_format = of.format;
  if (of.steps.trim()) body.steps = Number(of.steps);
  if (Number.isFinite(parseFloat(of.guidance))) body.guidance_scale = parseFloat(of.guidance);
  if (Object.keys(of.style).length) body.style = of.style;
  return body;
}

export function load(body: Body): void {
  const text = (value: unknown) => (value === undefined || value === null ? "" : String(value));
  form.value = {
    prompt: body.prompt,
    model: body.model ?? "auto",
    recipe: body.recipe ?? "",
    negative: body.negative_prompt ?? "",
    n: body.n ?? 1,
    size: !body.size || body.size === "auto" ? "" : body.size,
    seed: text(body.seed),
    format: body.output_format ?? "png",
    steps: text(body.steps),
    guidance: text(body.guidance_scale),
    style: { ...body.style },
    further: furtherOf(body),
  };
}

/** Whether several recipes are ticked to draw the same prompt and seed. */
export const comparing = signal(false);
export const ticked = signal<readonly string[]>([]);

// ------------------------------------------------------------------------------------------------------------- places

export const place = signal(location.hash.slice(1));
addEventListener("hashchange", () => (place.value = location.hash.slice(1)));

export const view = computed(() => (place.value.startsWith("/operate") ? "operate" : "make"));

/** The jobs that are shown large: `#/jobs/a,b`. */
export const shown = computed(() => jobsIn(place.value));

export function show(ids: readonly string[]): void {
  location.hash = ids.length ? `/jobs/${ids.map(encodeURIComponent).join(",")}` : "/";
}

const one_column = matchMedia("(max-width: 60rem)");

/** Whether the page has one column, as `make.css` has it. */
export const narrow = signal(one_column.matches);
one_column.addEventListener("change", () => (narrow.value = one_column.matches));

// -------------------------------------------------------------------------------------------------------------- theme

export type Theme = "system" | "light" | "dark";
const THEME = "triptych-theme";

const kept_theme = localStorage.getItem(THEME);
export const theme = signal<Theme>(kept_theme === "light" || kept_theme === "dark" ? kept_theme : "system");
effect(() => {
  const chosen = theme.value;
  if (chosen === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = chosen;
  localStorage.setItem(THEME, chosen);
});
