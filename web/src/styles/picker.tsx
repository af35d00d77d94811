/** Styles to wear: a sample of each, and a weight for those that are worn. */

import { useEffect, useRef } from "preact/hooks";
import { edit, form } from "../settings";
import { drawing } from "../make/route";
import { models } from "../models";
import { sampleOf } from "./samples";
import { type Style, named, stylesOf, unfit } from "./wearable";

export function Styles() {
  const styles = stylesOf(models.value);
  const worn = form.value.style;
  const names = Object.keys(worn);
  const all = useRef<HTMLDetailsElement>(null);
  const any = names.length > 0;
  useEffect(() => {
    if (any && all.current) all.current.open = true;
  }, [any]);
  if (!styles.length && !names.length) return null;
  const by = drawing.value;
  const wear = (id: string, weight: number | null) => {
    const { [id]: _, ...others } = form.value.style;
    edit({ style: weight === null ? others : { ...form.value.style, [id]: weight } });
  };
  return (
    <details class="styles" ref={all}>
      <summary>
        Styles
        {any && <span class="small"> {names.map((name) => `${name} ${worn[name]}`).join(", ")}</span>}
      </summary>
      <ul class="tiles">
        <li>
          <label class={`tile${any ? "" : " on"}`} title="As the model draws by itself">
            <input
              type="checkbox"
              class="unseen"
              checked={!any}
              disabled={!any}
              onChange={() => edit({ style: {} })}
            />
            <img class="crisp" src={sampleOf("plain")} alt="" width={64} height={64} loading="lazy" />
            <span class="name">none</span>
            <span class="small">as it is</span>
          </label>
        </li>
        {styles.map((style) => (
          <Tile
            key={style.id}
            style={style}
            on={style.id in worn}
            why={unfit(style, worn, styles, by, models.value)}
            onToggle={(on) => wear(style.id, on ? 1 : null)}
          />
        ))}
      </ul>
      {any && (
        <ul class="weights">
          {names.map((name) => {
            const style = styles.find((one) => one.id === name);
            return <Weight key={name} name={name} style={style} weight={worn[name]!} onWeigh={(to) => wear(name, to)} />;
          })}
        </ul>
      )}
    </details>
  );
}

interface TileProps {
  style: Style;
  on: boolean;
  why: string;
  onToggle: (on: boolean) => void;
}

function Tile({ style, on, why, onToggle }: TileProps) {
  const sample = sampleOf(style.id);
  const off = why !== "" && !on;
  return (
    <li>
      <label class={`tile${on ? " on" : ""}${why ? " out" : ""}`} title={why || style.description}>
        <input
          type="checkbox"
          class="unseen"
          checked={on}
          disabled={off}
          onChange={(event) => onToggle(event.currentTarget.checked)}
        />
        {sample ? (
          <img class="crisp" src={sample} alt="" width={64} height={64} loading="lazy" />
        ) : (
          <span class="initial" aria-hidden="true">
            {style.id[0]}
          </span>
        )}
        <span class="name">{style.id}</span>
        <span class="small">{why || named(style.kind)}</span>
      </label>
    </li>
  );
}

interface WeightProps {
  name: string;
  style: Style | undefined;
  weight: number;
  onWeigh: (to: number | null) => void;
}

function Weight({ name, style, weight, onWeigh }: WeightProps) {
  return (
    <li>
      <span class="row">
        <label class="sliding">
          <span>{name}</span>
          {style?.blends !== false && (
            <input
              type="range"
              min={style?.least ?? 0}
              max={style?.most ?? 1}
              step={0.05}
              value={weight}
              onInput={(event) => onWeigh(Number(event.currentTarget.value))}
            />
          )}
        </label>
        <output class="number">{style?.blends === false ? "on" : weight.toFixed(2)}</output>
        <button type="button" class="quiet icon" aria-label={`Take ${name} off`} title="Take it off" onClick={() => onWeigh(null)}>
          ×
        </button>
      </span>
      {style && <span class="small">{style.description}</span>}
      {!style && <span class="small">This server has no style of that name.</span>}
    </li>
  );
}
