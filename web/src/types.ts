/** The wire as this page reads it: docs/jobs.md and the OpenAPI document have the whole. Times are Unix seconds. */

export interface Failure {
  message: string;
  code: string | null;
  param?: string | null;
  rejected?: Rejection[];
  problems?: string[];
}

export interface Rejection {
  recipe: string;
  gate: string;
  reason: string;
}

export interface Estimate {
  quality: { mean: number; std: number; basis: string };
  latency_s: number;
  queue_s: number;
  cost_usd: number;
}

export interface PlannedStep {
  id: string;
  kind: string;
  model: string | null;
  inputs: string[];
}

export interface Decision {
  recipe: string;
  policy: string;
  reasons: string[];
  warnings: string[];
  degraded_from: string | null;
  estimates: Record<string, Estimate>;
  rejected: Rejection[];
  plan: { width: number; height: number; steps: PlannedStep[] };
}

export interface Body {
  prompt: string;
  model?: string;
  recipe?: string;
  negative_prompt?: string;
  n?: number;
  size?: string;
  seed?: number;
  output_format?: string;
  partial_images?: number;
  steps?: number | null;
  guidance_scale?: number | null;
  style?: Record<string, number> | null;
  [field: string]: unknown;
}

export interface PictureAt {
  id: string;
  index: number;
  seed: number;
  media_type: string;
  width: number;
  height: number;
  url: string;
}

export interface Check {
  recipe: string;
  seed: number;
  score: number;
  probability: number;
  accepted: boolean;
}

export interface Choice {
  action: "check" | "keep" | "retry" | "escalate" | "stop";
  recipe: string;
  reason: string;
}

export interface PictureReport {
  seed: number;
  recipe: string;
  steps: { id: string; kind: string; model: string | null; seconds: number }[];
  checks: Check[];
  choices: Choice[];
}

export interface Result {
  x_triptych: {
    request_id: string;
    policy: string;
    recipe: string;
    reasons: string[];
    warnings: string[];
    notes: string[];
    pictures: PictureReport[];
    missing: { index: number; message: string }[];
    latency_s: number;
    cost_usd: number;
    estimates: Record<string, Estimate>;
    plan: { width: number; height: number; steps: PlannedStep[] };
    replay: Body;
  };
}

export type JobState = "queued" | "running" | "done" | "failed" | "cancelled";

export interface JobReport {
  id: string;
  state: JobState;
  n: number;
  prompt: string | null;
  model: string;
  priority: string;
  position: number | null;
  eta_s: number | null;
  progress: number;
  created_at: number;
  finished_at: number | null;
  recipe: string | null;
  warnings: string[];
  error: Failure | null;
  pictures: PictureAt[];
  request: Body;
  result?: Result | null;
  tenant?: string;
}

export interface Routed {
  recipe: string;
  policy: string;
  reasons: string[];
  warnings: string[];
  seed: number;
  width: number;
  height: number;
  estimate: Estimate;
  steps: PlannedStep[];
}

export type JobEvent =
  | ({ type: "job.routed" } & Routed)
  | { type: "job.step"; index: number; step: string; done: number; total: number }
  | ({ type: "job.check"; index: number } & Check)
  | ({ type: "job.choice"; index: number; steps: PlannedStep[] } & Choice)
  | { type: "job.preview"; index: number; number: number; media_type: string; b64_json: string }
  | ({ type: "job.picture"; report: PictureReport | null } & PictureAt)
  | { type: "job.done" }
  | { type: "job.failed"; error: Failure }
  | { type: "job.cancelled"; error: Failure };

export interface Model {
  id: string;
  x_triptych: {
    kind: "policy" | "recipe" | "model" | "alias" | "style";
    description?: string;
    recipes?: string[];
    /** Of a recipe: what it draws from, `text`, `image`, `mask`. */
    takes?: string[];
    family?: string;
    native_size?: [number, number];
    max_pixels?: number;
    style_kind?: string;
    weights?: [number, number];
    blends?: boolean;
    many?: boolean;
    worn_by?: string[];
  };
}
