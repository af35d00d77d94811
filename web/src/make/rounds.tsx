/** How a picture comes to be: its plan step by step, the look at it, and what was tried again. */

import type { Pic, Round } from "../jobs";
import { doing, share } from "../words";
import { sentence } from "./why";

export function Rounds({ pic }: { pic: Pic }) {
  if (!pic.rounds.length) return <ol class="rounds" />;
  return (
    <>
      <ol class="rounds">
        {pic.rounds.map((round, place) => (
          <One key={place} round={round} first={place === 0} />
        ))}
      </ol>
      {pic.ended && pic.picture && <p class="small ended">{sentence(pic.ended)}</p>}
    </>
  );
}

function One({ round, first }: { round: Round; first: boolean }) {
  const { check } = round;
  return (
    <li>
      <p class="round">
        <strong>{round.recipe}</strong>
        {!first && round.why && <span class="small"> {round.why}</span>}
      </p>
      {round.steps.length > 0 && (
        <ol class="steps">
          {round.steps.map((step) => (
            <li key={step.id} class={step.state} title={step.id}>
              <span class="fill" aria-hidden="true" style={{ transform: `scaleX(${step.share})` }} />
              <span>{doing(step)}</span>
              <span class="unseen">, {step.state}</span>
            </li>
          ))}
        </ol>
      )}
      {(round.looking || check) && (
        <p class={`look${check ? (check.accepted ? " yes" : " no") : ""}`}>
          {check
            ? `Looked at: ${check.accepted ? "probably right" : "probably not what you asked for"}, ${share(check.probability)}`
            : "Being looked at"}
        </p>
      )}
    </li>
  );
}
