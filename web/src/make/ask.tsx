/** The prompt and everything that can be set beside it. */

import { useEffect, useRef } from "preact/hooks";
import { Chooser } from "../edit/chooser";
import { Desk } from "../edit/desk";
import { given } from "../edit/given";
import { edit, comparing, form, ticked } from "../settings";
import { Styles } from "../styles/picker";
import { entries } from "./history";
import { make, sending } from "./make";
import { models, recipesOf } from "../models";
import { decided, refusal } from "./route";
import { FIELDS } from "./why";
import type { Decision } from "../types";

const EXAMPLES = ["a red circle above a blue square", "two green stars", "a yellow ring left of a purple triangle"];
const MOST = 8;

export function Ask() {
  const now = form.value;
  const more = useRef<HTMLDetailsElement>(null);
  const wrong = FIELDS.includes(refusal.value?.param ?? "");
  useEffect(() => {
    if (wrong && more.current) more.current.open = true; // what is wrong stands in there
  }, [wrong]);
  const ready = now.prompt.trim() !== "" && !sending.value && !(comparing.value && ticked.value.length === 0);
  const verb = given.value ? "Change" : "Make";
  const label = comparing.value ? `Compare ${ticked.value.length || ""}`.trim() : now.n > 1 ? `${verb} ${now.n}` : verb;
  return (
    <form
      class="ask"
      onSubmit={(event) => {
        event.preventDefault();
        if (ready) void make();
      }}
    >
      <label class="prompt">
        <span class="caption">
          Prompt
          <span id="keys" class="keys" aria-hidden="true">
            <kbd>Enter</kbd> {given.value ? "changes" : "makes"}, <kbd>Shift</kbd> <kbd>Enter</kbd> is a new line
          </span>
        </span>
        <textarea
          autofocus
          rows={3}
          value={now.prompt}
          placeholder={given.value ? "What should be there instead?" : "What should the picture show?"}
          aria-describedby="keys"
          onInput={(event) => edit({ prompt: event.currentTarget.value })}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            if (ready) void make();
          }}
        />
      </label>
      {entries.value.length === 0 && !now.prompt && (
        <p class="examples">
          <span>Try</span>
          {EXAMPLES.map((text) => (
            <button type="button" class="link" onClick={() => edit({ prompt: text })}>
              {text}
            </button>
          ))}
        </p>
      )}
      <div class="row acts">
        <button type="submit" class="primary" aria-disabled={!ready}>
          {label}
        </button>
        <label class="inline">
          <span class="unseen">Policy</span>
          <select
            value={now.model}
            onChange={(event) => {
              edit({ model: event.currentTarget.value, recipe: "" });
              ticked.value = [];
              if (comparing.value) void tickWhatIsWorthComparing();
            }}
          >
            <Names chosen={now.model} />
          </select>
        </label>
        <button
          type="button"
          class="toggle"
          aria-pressed={comparing.value}
          onClick={() => {
            comparing.value = !comparing.value;
            if (comparing.value) void tickWhatIsWorthComparing();
          }}
        >
          Compare
        </button>
      </div>
      {given.value ? (
        <Desk of={given.value} />
      ) : (
        <p class="small entry">
          <Chooser label="Change a picture" quiet /> of yours: choose one, drop it anywhere here, or paste it.
        </p>
      )}
      <Styles />
      <details class="more" ref={more}>
        <summary>More</summary>
        <div class="fields">
          <Field name="size" label="Size" hint="as the models like it, or 64x64">
            <input value={now.size} placeholder="auto" onInput={(event) => edit({ size: event.currentTarget.value })} />
          </Field>
          <Field name="seed" label="Seed" hint="the same seed, the same picture">
            <input
              inputMode="numeric"
              value={now.seed}
              placeholder="random"
              onInput={(event) => edit({ seed: event.currentTarget.value.replace(/\D/g, "").slice(0, 10) })}
            />
          </Field>
          <Field name="steps" label="Steps" hint="more take longer">
            <input
              inputMode="numeric"
              value={now.steps}
              placeholder="auto"
              onInput={(event) => edit({ steps: event.currentTarget.value.replace(/\D/g, "").slice(0, 4) })}
            />
          </Field>
          <Field name="guidance_scale" label="Guidance" hint="how closely it follows the prompt">
            <input
              inputMode="decimal"
              value={now.guidance}
              placeholder="auto"
              onInput={(event) => edit({ guidance: event.currentTarget.value.replace(/[^\d.]/g, "").slice(0, 6) })}
            />
          </Field>
          <Field name="n" label="Pictures">
            <input
              type="number"
              min={1}
              max={MOST}
              value={now.n}
              onInput={(event) => edit({ n: Math.min(MOST, Math.max(1, Number(event.currentTarget.value) || 1)) })}
            />
          </Field>
          <Field name="output_format" label="File">
            <select value={now.format} onChange={(event) => edit({ format: event.currentTarget.value })}>
              <option value="png">PNG</option>
              <option value="webp">WebP</option>
              <option value="jpeg">JPEG</option>
            </select>
          </Field>
          <Field name="negative_prompt" label="Not in the picture" wide>
            <input value={now.negative} onInput={(event) => edit({ negative: event.currentTarget.value })} />
          </Field>
          <Further />
        </div>
      </details>
    </form>
  );
}

/** What a past request asked for that has no field here, so that it is not lost, and can be. */
function Further() {
  const { further } = form.value;
  const names = Object.keys(further);
  if (!names.length) return null;
  return (
    <div class="field wide">
      <span class="caption">Also asked for</span>
      <span class="row">
        {names.map((name) => (
          <button
            type="button"
            class="chip"
            aria-label={`Leave out ${name}`}
            title="Leave it out"
            onClick={() => {
              const { [name]: _, ...others } = form.value.further;
              edit({ further: others });
            }}
          >
            {said(name, further[name])} <span aria-hidden="true">×</span>
          </button>
        ))}
      </span>
    </div>
  );
}

function said(name: string, value: unknown): string {
  if (name === "image" || name === "mask") return `the ${name} that was given`;
  const text = `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`;
  return text.length > 40 ? `${text.slice(0, 39)}…` : text;
}

/** Tick some recipes, unless some are: by the decision on the form as it stands, which may be on its way. */
async function tickWhatIsWorthComparing(): Promise<void> {
  const found = await decided();
  if (comparing.value && !ticked.value.length) ticked.value = worthComparing(form.value.model, found);
}

/** The one that the policy takes, the best, the fastest: what one would want to see side by side. */
function worthComparing(model: string, found: Decision | null): string[] {
  const names = recipesOf(model);
  if (!found) return names.slice(0, 3);
  const known = names.flatMap((name) => (found.estimates[name] ? [{ name, is: found.estimates[name] }] : []));
  const best = known.toSorted((a, b) => b.is.quality.mean - a.is.quality.mean).map((one) => one.name);
  const fast = known.toSorted((a, b) => a.is.latency_s - b.is.latency_s).map((one) => one.name);
  const picked = new Set([found.recipe, best[0], fast[0], ...fast].filter((name) => name !== undefined));
  return [...picked].slice(0, 3);
}

function Names({ chosen }: { chosen: string }) {
  const kinds = { policy: "Policies", model: "One model alone" } as const;
  const known = models.value.some((one) => one.id === chosen);
  return (
    <>
      {!known && <option value={chosen}>{chosen}</option>}
      {(Object.keys(kinds) as (keyof typeof kinds)[]).map((kind) => (
        <optgroup label={kinds[kind]}>
          {models.value
            .filter((one) => one.x_triptych.kind === kind)
            .map((one) => (
              <option value={one.id} title={one.x_triptych.description}>
                {one.id === "auto" ? `auto (${one.x_triptych.description?.split(", ")[1] ?? "default"})` : one.id}
              </option>
            ))}
        </optgroup>
      ))}
    </>
  );
}

interface FieldProps {
  name: string;
  label: string;
  hint?: string;
  wide?: boolean;
  children: preact.ComponentChildren;
}

/** A labelled input; what the server has against it stands below. */
function Field({ name, label, hint, wide, children }: FieldProps) {
  const wrong = refusal.value?.param === name ? refusal.value.message : "";
  return (
    <label class={wide ? "field wide" : "field"}>
      <span class="caption">{label}</span>
      {children}
      <span class={wrong ? "small wrong" : "small"}>{wrong || hint || ""}</span>
    </label>
  );
}
