/** Beside the prompt: which picture is being changed, and the way back to painting on it. */

import { useEffect, useRef } from "preact/hooks";
import { share as percent } from "../words";
import { type Given, folded, painted, putAway, share } from "./given";

const SIDE = 56; // CSS pixels

export function Desk({ of }: { of: Given }) {
  const small = useRef<HTMLCanvasElement>(null);
  const { width, height } = of.picture;
  const scale = SIDE / Math.max(width, height);
  void painted.value;
  useEffect(() => {
    const canvas = small.current!;
    const dense = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale * dense);
    canvas.height = Math.round(height * scale * dense);
    canvas.getContext("2d")!.drawImage(of.picture, 0, 0, canvas.width, canvas.height);
  }, [of.picture]);
  return (
    <div class="given" role="group" aria-label="The picture that is changed">
      <canvas ref={small} aria-hidden="true" style={{ width: `${width * scale}px`, height: `${height * scale}px` }} />
      <p>
        <strong>Changing {of.name}</strong>
        <span class="small">
          {width} × {height}, {share.value ? `${percent(share.value)} of it` : "all of it"}
        </span>
      </p>
      {folded.value && (
        <button type="button" onClick={() => (folded.value = false)}>
          Paint
        </button>
      )}
      <button type="button" class="quiet" onClick={putAway}>
        Stop
      </button>
    </div>
  );
}
