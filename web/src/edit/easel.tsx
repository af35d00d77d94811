/** The given picture with its mask, painted by mouse, finger, pen or keyboard. */

import { useEffect, useRef, useState } from "preact/hooks";
import { CRISP, shownAt } from "../make/picture";
import { type Given, painted, share } from "./given";
import type { Box, Point } from "./mask";
import { erasing, radiusOf, resize } from "./brush";
import { Tools } from "./tools";

/** Of what may change: the bytes of red, green, blue and alpha as one number, in this machine's order. */
const COLOUR = new Uint32Array(new Uint8Array([255, 92, 38, 150]).buffer)[0]!;

interface Props {
  of: Given;
}

export function Easel({ of }: Props) {
  const frame = useRef<HTMLDivElement>(null);
  const picture = useRef<HTMLCanvasElement>(null);
  const veil = useRef<HTMLCanvasElement>(null);
  const [room, setRoom] = useState(0);
  const [at, setAt] = useState<Point | null>(null); // of the brush, in pixels of the picture
  const [down, setDown] = useState(false); // the keyboard's brush paints wherever it goes
  const last = useRef<Point | null>(null); // of the stroke under way
  const { width, height } = of.mask;
  const radius = radiusOf(of.mask);

  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setRoom(entry!.contentRect.width));
    watch.observe(frame.current!);
    const { top } = frame.current!.getBoundingClientRect();
    if (top < 0 || top > innerHeight / 2) frame.current!.scrollIntoView({ block: "start" });
    // What was pressed to come here is gone, and the focus with it.
    if (document.activeElement === document.body) veil.current!.focus({ preventScroll: true });
    return () => watch.disconnect();
  }, []);
  useEffect(() => {
    picture.current!.getContext("2d")!.drawImage(of.picture, 0, 0);
    setAt(null);
  }, [of.picture]);
  const version = painted.value;
  useEffect(() => cover(of, veil.current!, null), [of.mask, version]);

  const shown = shownAt({ width, height }, room);
  const crisp = Math.max(width, height) <= CRISP ? "crisp" : "";
  const style = { width: `${shown.width}px`, height: `${shown.height}px` };

  const pointOf = (event: PointerEvent): Point => {
    const box = veil.current!.getBoundingClientRect();
    return { x: ((event.clientX - box.left) * width) / box.width, y: ((event.clientY - box.top) * height) / box.height };
  };
  const paint = (from: Point, to: Point) => {
    cover(of, veil.current!, of.mask.stroke(from, to, radius, erasing.value ? 0 : 1));
  };
  const dab = (to: Point) => {
    of.mask.begin();
    paint(to, to);
    painted.value++;
  };
  const onKey = (event: KeyboardEvent) => {
    const far = event.shiftKey ? 1 : Math.max(1, Math.round(radius));
    const moves: Record<string, Point> = {
      ArrowLeft: { x: -far, y: 0 },
      ArrowRight: { x: far, y: 0 },
      ArrowUp: { x: 0, y: -far },
      ArrowDown: { x: 0, y: far },
    };
    const from = at ?? { x: width / 2, y: height / 2 };
    const move = moves[event.key];
    if (move) {
      const to = { x: Math.min(width, Math.max(0, from.x + move.x)), y: Math.min(height, Math.max(0, from.y + move.y)) };
      setAt(to);
      if (down) {
        paint(from, to);
        painted.value++;
      }
    } else if (event.key === " ") {
      dab(from);
    } else if (event.key === "Enter") {
      if (!down) dab(from);
      setDown(!down);
    } else if (event.key === "[") resize(-1);
    else if (event.key === "]") resize(1);
    else if (event.key === "e") erasing.value = !erasing.value;
    else if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
      of.mask.undo();
      painted.value++;
    } else return;
    event.preventDefault();
  };

  return (
    <div class="easel">
      <div class="frame" ref={frame}>
        <div class="sheet" style={style}>
          <canvas ref={picture} class={crisp} width={width} height={height} style={style} aria-hidden="true" />
          <canvas
            ref={veil}
            class={`veil ${crisp}`}
            width={width}
            height={height}
            style={style}
            tabIndex={0}
            role="application"
            aria-label={`Mask over ${of.name}`}
            aria-describedby="easel-keys"
            onKeyDown={onKey}
            onFocus={() => setAt((now) => now ?? { x: width / 2, y: height / 2 })}
            onBlur={() => {
              setAt(null);
              setDown(false);
            }}
            onPointerDown={(event) => {
              if (event.button) return;
              event.preventDefault();
              veil.current!.focus({ preventScroll: true });
              veil.current!.setPointerCapture(event.pointerId);
              of.mask.begin();
              last.current = pointOf(event);
              setAt(last.current);
              paint(last.current, last.current);
            }}
            onPointerMove={(event) => {
              const to = pointOf(event);
              setAt(to);
              if (!last.current) return;
              for (const one of event.getCoalescedEvents?.() ?? []) {
                const between = pointOf(one);
                paint(last.current, between);
                last.current = between;
              }
              paint(last.current, to);
              last.current = to;
            }}
            onPointerUp={() => {
              if (last.current) painted.value++;
              last.current = null;
            }}
            onPointerCancel={() => {
              if (last.current) painted.value++;
              last.current = null;
            }}
            onPointerLeave={() => last.current || (document.activeElement !== veil.current && setAt(null))}
          />
          {at && (
            <span
              class={`ring${erasing.value ? " erasing" : ""}${down ? " down" : ""}`}
              aria-hidden="true"
              style={{
                width: `${(2 * radius * shown.width) / width}px`,
                height: `${(2 * radius * shown.width) / width}px`,
                left: `${(at.x * shown.width) / width}px`,
                top: `${(at.y * shown.height) / height}px`,
              }}
            />
          )}
        </div>
      </div>
      <p id="easel-keys" class="small keys-of">
        Paint over what may change. By keyboard: arrows move the brush, <kbd>Space</kbd> paints, <kbd>Enter</kbd> puts it down
        and lifts it, <kbd>[</kbd> <kbd>]</kbd> size, <kbd>E</kbd> erases, <kbd>Ctrl Z</kbd> takes back.
      </p>
      <Tools of={of} />
      <p class="unseen" role="status">
        {down ? "The brush is down. " : ""}
        {share.value ? `${Math.round(share.value * 100)} percent of the picture may change.` : ""}
      </p>
    </div>
  );
}

/** Show the mask over the picture: all of it, or what a stroke touched. */
function cover({ mask }: Given, veil: HTMLCanvasElement, touched: Box | null): void {
  const box = touched ?? { left: 0, top: 0, right: mask.width, bottom: mask.height };
  const [width, height] = [box.right - box.left, box.bottom - box.top];
  if (width <= 0 || height <= 0) return;
  const pixels = new ImageData(width, height);
  const whole = new Uint32Array(pixels.data.buffer); // four million of them must not take longer than a frame or two
  for (let y = 0; y < height; y++) {
    const from = (y + box.top) * mask.width + box.left;
    for (let x = 0; x < width; x++) if (mask.bits[from + x]) whole[y * width + x] = COLOUR;
  }
  veil.getContext("2d")!.putImageData(pixels, box.left, box.top);
}
