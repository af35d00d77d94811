/** Why this recipe, what to be aware of, and why others are out. */

import { comparing, form } from "../settings";
import { decision, refusal } from "./route";

const FIRST = 3; // reasons that stand there without asking
/** Where the form itself says what is wrong. */
export const FIELDS = ["size", "seed", "n", "output_format", "negative_prompt", "steps", "guidance_scale"];

export function Why() {
  const found = decision.value;
  const refused = refusal.value;
  if (refused && !FIELDS.includes(refused.param ?? "")) {
    return (
      <div class="why" aria-live="polite">
        <h2>It cannot be made like this</h2>
        <p>{refused.rejected ? "No recipe of this policy can serve it. The reasons stand beside them." : refused.message}</p>
      </div>
    );
  }
  if (!found || !form.value.prompt.trim()) return <div class="why" aria-live="polite" />;
  const out = found.rejected.filter((one) => one.gate !== "pinned");
  return (
    <div class="why" aria-live="polite">
      <h2>
        {comparing.value ? "The policy would take" : "Why"} <em>{found.recipe}</em>
      </h2>
      {found.warnings.map((text) => (
        <p class="warning">{sentence(text)}</p>
      ))}
      {found.degraded_from && (
        <p class="warning">Others wait: {found.recipe} stands in for {found.degraded_from}.</p>
      )}
      <ul>
        {found.reasons.slice(0, FIRST).map((text) => (
          <li>{sentence(text)}</li>
        ))}
      </ul>
      {found.reasons.length > FIRST && (
        <details>
          <summary>All reasons</summary>
          <ul>
            {found.reasons.slice(FIRST).map((text) => (
              <li>{sentence(text)}</li>
            ))}
          </ul>
        </details>
      )}
      {out.length > 0 && (
        <details>
          <summary>{out.length === 1 ? "One recipe is out" : `${out.length} recipes are out`}</summary>
          <ul>
            {out.map((one) => (
              <li>
                <strong>{one.recipe}</strong> {one.reason.replace(/^recipe '[^']*': /, "")}
              </li>
            ))}
          </ul>
        </details>
      )}
    </div>
  );
}

export function sentence(text: string): string {
  const whole = /[.!?]$/.test(text) ? text : `${text}.`;
  return /^[a-z][\w-]*(:| had| did)/.test(whole) ? whole : whole[0]!.toUpperCase() + whole.slice(1);
}
