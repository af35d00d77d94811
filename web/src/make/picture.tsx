/** A picture at its place: previews first, the picture when it is there. The place has its size from the beginning. */

import { useEffect, useRef, useState } from "preact/hooks";
import { here } from "../api";
import { BeforeAfter } from "../edit/before";
import { type Pic, progressOf } from "../jobs";

export const CRISP = 160; // pixels up to which a picture is shown enlarged, each pixel as a square
const LARGEST = 576; // CSS pixels of a side

interface Props {
  pic: Pic;
  size: { width: number; height: number };
  name: string;
  open: boolean;
  many: boolean;
  chosen: boolean;
  /** The address of what it was made of, if it was a picture. */
  before: string | undefined;
  onChoose: (() => void) | undefined;
}

export function Picture({ pic, size, name, open, many, chosen, before, onChoose }: Props) {
  const frame = useRef<HTMLDivElement>(null);
  const [room, setRoom] = useState(0);
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setRoom(entry!.contentRect.width));
    watch.observe(frame.current!);
    return () => watch.disconnect();
  }, []);
  const shown = shownAt(size, Math.min(room, many ? LARGEST / 1.5 : LARGEST));
  const crisp = Math.max(size.width, size.height) <= CRISP;
  const source = pic.picture ? here(pic.picture.url) : pic.preview || (before ?? "");
  const style = { width: `${shown.width}px`, height: `${shown.height}px` };
  const progress = progressOf(pic);
  const image = source ? (
    <img class={crisp ? "crisp" : ""} src={source} alt={pic.picture ? name : pic.preview ? `Preview of ${name}` : `What ${name} is made of`} style={style} />
  ) : (
    <span class="blank" style={style} />
  );
  return (
    <div class={`frame${pic.picture ? " made" : ""}${chosen ? " chosen" : ""}`} ref={frame}>
      {before && pic.picture && (chosen || !onChoose) ? (
        <BeforeAfter before={before} after={source} name={name} crisp={crisp} style={style} />
      ) : onChoose ? (
        <button type="button" aria-pressed={chosen} aria-label={`Tell about ${name}`} onClick={onChoose}>
          {image}
        </button>
      ) : (
        image
      )}
      <span
        class="progress"
        role="progressbar"
        aria-label={`Progress of ${name}`}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(progress * 100)}
        style={{ width: style.width, visibility: open && !pic.picture ? "visible" : "hidden" }}
      >
        <span style={{ transform: `scaleX(${progress})` }} />
      </span>
    </div>
  );
}

/** CSS pixels: small pictures at a whole number of device pixels for each of theirs, so that every one is a square. */
export function shownAt(size: { width: number; height: number }, room: number): { width: number; height: number } {
  const dense = window.devicePixelRatio || 1;
  const side = Math.max(size.width, size.height);
  const fits = Math.min(room / size.width, LARGEST / side);
  const scale = side <= CRISP ? Math.max(1, Math.floor(fits * dense)) / dense : Math.min(fits, 1);
  return { width: size.width * scale, height: size.height * scale };
}
