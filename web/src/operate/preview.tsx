/** What a policy would have decided on the last requests, beside what was decided; or what is wrong with it. */

import { plural, seconds, share, two } from "../words";

export interface Problem {
  line: number;
  column: number;
  message: string;
  proposal: string | null;
}

export interface PreviewReport {
  valid: boolean;
  problems: Problem[];
  decisions: number;
  changed: number;
  before: Record<string, number>;
  after: Record<string, number>;
  refused: { before: number; after: number };
  seconds: { before: number | null; after: number | null };
  quality: { before: number | null; after: number | null };
  examples: { prompt: string | null; before: string | null; after: string | null; why: string }[];
}

interface Props {
  of: PreviewReport;
  onGo: (line: number, column: number) => void;
  onMend: (problem: Problem) => void;
}

export function Preview({ of, onGo, onMend }: Props) {
  if (!of.valid) {
    return (
      <div id="verdict" aria-live="polite">
        <h2>{of.problems.length === 1 ? "One thing is wrong" : `${of.problems.length} things are wrong`}</h2>
        <ul class="problems">
          {of.problems.map((one) => (
            <li>
              <button type="button" class="link" onClick={() => onGo(one.line, one.column)}>
                Line {one.line}
              </button>{" "}
              {one.message}
              {one.proposal && (
                <button type="button" class="mend" onClick={() => onMend(one)}>
                  Use {one.proposal}
                </button>
              )}
            </li>
          ))}
        </ul>
      </div>
    );
  }
  return (
    <div id="verdict" aria-live="polite" class="verdict">
      <h2>What it would change</h2>
      {of.decisions === 0 ? (
        <p class="small">It is valid. The policy has decided nothing yet, so there is nothing to compare with.</p>
      ) : (
        <Compared of={of} />
      )}
    </div>
  );
}

function Compared({ of }: { of: PreviewReport }) {
  const names = [...new Set([...Object.keys(of.before), ...Object.keys(of.after)])];
  const total = Math.max(1, of.decisions);
  return (
    <>
      <p>
        <strong>{of.changed}</strong> of the last {plural(of.decisions, "decision")} would be another
        {of.changed === 0 ? "." : ":"}
      </p>
      <table class="shares">
        <caption class="unseen">Share of each recipe before and after</caption>
        <thead>
          <tr>
            <th scope="col">Recipe</th>
            <th scope="col" class="number">
              Now
            </th>
            <th scope="col" class="number">
              Then
            </th>
          </tr>
        </thead>
        <tbody>
          {names.map((name) => (
            <tr>
              <td>{name}</td>
              <td class="number">{share((of.before[name] ?? 0) / total)}</td>
              <td class="number">{share((of.after[name] ?? 0) / total)}</td>
            </tr>
          ))}
          {of.refused.before + of.refused.after > 0 && (
            <tr>
              <td>(refused)</td>
              <td class="number">{share(of.refused.before / total)}</td>
              <td class="number">{share(of.refused.after / total)}</td>
            </tr>
          )}
          <tr class="sum">
            <td>Expected quality</td>
            <td class="number">{two(of.quality.before)}</td>
            <td class="number">{two(of.quality.after)}</td>
          </tr>
          <tr>
            <td>Seconds a request</td>
            <td class="number">{of.seconds.before === null ? "–" : seconds(of.seconds.before)}</td>
            <td class="number">{of.seconds.after === null ? "–" : seconds(of.seconds.after)}</td>
          </tr>
        </tbody>
      </table>
      {of.examples.length > 0 && (
        <details open>
          <summary>For example</summary>
          <ul class="examples-of">
            {of.examples.map((one) => (
              <li>
                {one.prompt && <q>{one.prompt}</q>} {one.before ?? "refused"} → <strong>{one.after ?? "refused"}</strong>
                <span class="small"> {one.why}</span>
              </li>
            ))}
          </ul>
        </details>
      )}
    </>
  );
}
