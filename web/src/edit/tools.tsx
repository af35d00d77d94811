/** What one can do at the easel: brush, mask, strength, a larger picture, another one. */

import { share as percent } from "../words";
import { SIZES, erasing, size } from "./brush";
import { type Given, extend, painted, share, strength } from "./given";
import { Chooser } from "./chooser";

const SIDES = { left: "Left", top: "Above", right: "Right", bottom: "Below" } as const;

export function Tools({ of }: { of: Given }) {
  void painted.value;
  const { mask } = of;
  const act = (what: () => void) => () => {
    what();
    painted.value++;
  };
  return (
    <div class="bench">
      <div class="row">
        <span class="segments" role="group" aria-label="Brush">
          <button type="button" class="toggle" aria-pressed={!erasing.value} onClick={() => (erasing.value = false)}>
            Paint
          </button>
          <button type="button" class="toggle" aria-pressed={erasing.value} onClick={() => (erasing.value = true)}>
            Erase
          </button>
        </span>
        <label class="sliding">
          <span class="caption">Brush</span>
          <input
            type="range"
            min={SIZES.least}
            max={SIZES.most}
            step={SIZES.step}
            value={size.value}
            onInput={(event) => (size.value = Number(event.currentTarget.value))}
          />
        </label>
        <button type="button" disabled={!mask.canUndo} onClick={act(() => mask.undo())}>
          Undo
        </button>
        <button type="button" onClick={act(() => mask.invert())}>
          Invert
        </button>
        <button type="button" disabled={!share.value} onClick={act(() => mask.clear())}>
          Clear
        </button>
      </div>
      <p class="small">
        {share.value
          ? `${percent(share.value)} of the picture may change; the rest stays as it is.`
          : "Nothing is painted over: all of the picture may change."}
      </p>
      <div class="row">
        <label class="sliding">
          <span class="caption">Strength</span>
          <input
            type="range"
            min={0.05}
            max={1}
            step={0.05}
            value={strength.value ?? (share.value ? 1 : 0.6)}
            class={strength.value === null ? "untouched" : ""}
            aria-valuetext={strength.value === null ? "as the recipe has it" : undefined}
            onInput={(event) => (strength.value = Number(event.currentTarget.value))}
          />
        </label>
        <span class="small">
          {strength.value === null ? "as the recipe has it" : `${strength.value.toFixed(2)}: ${strongly(strength.value)}`}
        </span>
        {strength.value !== null && (
          <button type="button" class="link" onClick={() => (strength.value = null)}>
            Leave it to the recipe
          </button>
        )}
      </div>
      <div class="row" role="group" aria-label="Make the picture larger">
        <span class="caption">Extend</span>
        {(Object.keys(SIDES) as (keyof typeof SIDES)[]).map((side) => (
          <button type="button" onClick={() => extend(side)}>
            {SIDES[side]}
          </button>
        ))}
        <span class="small">
          {mask.width} × {mask.height}
        </span>
      </div>
      {of.notes.map((text) => (
        <p class="small">{text}</p>
      ))}
      <div class="row">
        <Chooser label="Another picture" />
      </div>
    </div>
  );
}

function strongly(value: number): string {
  if (value < 0.3) return "colours and texture";
  if (value < 0.6) return "details; shapes stay";
  return value < 0.9 ? "shapes, too" : "little of it stays";
}
