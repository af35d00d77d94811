/** The recipes of the policy with what is expected of each, as a choice: the policy's, one's own, or several to compare. */

import { comparing, edit, form, ticked } from "../settings";
import type { Estimate } from "../types";
import { dollars, seconds, two } from "../words";
import { recipesOf } from "../models";
import { deciding, decision, refusal } from "./route";

export function Recipes() {
  const now = form.value;
  const found = decision.value;
  const names = recipesOf(now.model);
  const listed = names.length ? names : Object.keys(found?.estimates ?? {});
  if (!listed.length) return <div class="recipes empty" />;
  const out = new Map(
    (found?.rejected ?? refusal.value?.rejected ?? [])
      .filter((one) => one.gate !== "pinned")
      .map((one) => [one.recipe, one.reason.replace(/^recipe '[^']*': /, "")]),
  );
  const most = Math.max(...Object.values(found?.estimates ?? {}).map((one) => one.latency_s), 0.001);
  return (
    <fieldset class="recipes" aria-busy={deciding.value}>
      <legend class="caption">{comparing.value ? "Recipes to compare" : "Recipe"}</legend>
      <div class="recipe head" aria-hidden="true">
        <span />
        <span />
        <span>Quality</span>
        <span class="number">Time</span>
        <span class="number">Cost</span>
      </div>
      {!comparing.value && (
        <label class="recipe auto">
          <input type="radio" name="recipe" checked={!now.recipe} onChange={() => edit({ recipe: "" })} />
          <span class="name">The policy chooses</span>
          <span class="choice">{found && !now.recipe ? found.recipe : ""}</span>
        </label>
      )}
      {listed.map((name) => (
        <Recipe
          name={name}
          estimate={found?.estimates[name]}
          chosen={!comparing.value && (found ? found.recipe === name : false)}
          out={out.get(name)}
          most={most}
        />
      ))}
    </fieldset>
  );
}

interface RecipeProps {
  name: string;
  estimate: Estimate | undefined;
  chosen: boolean;
  out: string | undefined;
  most: number;
}

function Recipe({ name, estimate, chosen, out, most }: RecipeProps) {
  const many = comparing.value;
  const checked = many ? ticked.value.includes(name) : form.value.recipe === name;
  const pick = () => {
    if (!many) edit({ recipe: name });
    else ticked.value = checked ? ticked.value.filter((one) => one !== name) : [...ticked.value, name];
  };
  return (
    <label class={`recipe${chosen ? " chosen" : ""}${out ? " out" : ""}`} title={out}>
      <input type={many ? "checkbox" : "radio"} name="recipe" checked={checked} onChange={pick} />
      <span class="name">{name}</span>
      {out ? (
        <span class="reason">{out}</span>
      ) : (
        <>
          <Quality estimate={estimate} />
          <span class="number">
            {estimate ? seconds(estimate.latency_s) : "–"}
            <span class="clock" aria-hidden="true" style={{ transform: `scaleX(${(estimate?.latency_s ?? 0) / most})` }} />
          </span>
          <span class="number">{estimate ? dollars(estimate.cost_usd) : "–"}</span>
        </>
      )}
      {chosen && <span class="unseen">chosen</span>}
    </label>
  );
}

/** Expected quality from 0 to 1 as a bar, with what is not known about it as a lighter band. */
function Quality({ estimate }: { estimate: Estimate | undefined }) {
  const { mean = 0, std = 0 } = estimate?.quality ?? {};
  const low = Math.max(0, mean - std);
  const high = Math.min(1, mean + std);
  const words = estimate ? `expected quality ${two(mean)} of 1, give or take ${two(std)}` : "not known yet";
  return (
    <span class="quality" title={words}>
      <span class="bar" aria-hidden="true">
        <span class="sure" style={{ transform: `scaleX(${low})` }} />
        <span class="unsure" style={{ transform: `translateX(${low * 100}%) scaleX(${high - low})` }} />
        <span class="mean" style={{ transform: `translateX(${mean * 100}%)` }} />
      </span>
      <span class="figure" aria-hidden="true">
        {two(estimate?.quality.mean)}
      </span>
      <span class="unseen">{words}</span>
    </span>
  );
}
