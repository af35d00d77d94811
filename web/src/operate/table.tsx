/** A table that can be read aloud. Heads that begin with # are over numbers. */

import type { ComponentChildren } from "preact";

interface Props {
  caption: string;
  heads: string[];
  rows: { key: string; cells: ComponentChildren[] }[];
  none?: string;
}

export function Table({ caption, heads, rows, none }: Props) {
  if (!rows.length) return <p class="small">{none ?? "Nothing is here."}</p>;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={caption}>
      <table>
        <caption class="unseen">{caption}</caption>
        <thead>
          <tr>
            {heads.map((head) => (
              <th scope="col" class={head.startsWith("#") ? "number" : ""}>
                {head.replace("#", "")}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.key}>
              {row.cells.map((cell, place) => (
                <td class={heads[place]?.startsWith("#") ? "number" : ""}>{cell}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
