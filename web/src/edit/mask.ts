/** Which pixels of a picture may change: painted with a round brush, taken back stroke by stroke. */

export interface Point {
  x: number;
  y: number;
}

/** The pixels that something touched: from left, top up to right, bottom, which are outside. */
export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

const REMEMBERED = 32 * 2 ** 20; // bytes of strokes that can be taken back
const MOST_STROKES = 60;

export class Mask {
  /** One byte for each pixel, row by row; 1: it may change. */
  bits: Uint8Array<ArrayBuffer>;
  private past: Uint8Array<ArrayBuffer>[] = [];

  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.bits = new Uint8Array(width * height);
  }

  /** Remember the mask as it is: what comes now is one stroke. */
  begin(): void {
    this.past.push(this.bits.slice());
    const most = Math.max(1, Math.min(MOST_STROKES, Math.floor(REMEMBERED / Math.max(1, this.bits.length))));
    if (this.past.length > most) this.past.shift();
  }

  get canUndo(): boolean {
    return this.past.length > 0;
  }

  undo(): void {
    this.bits = this.past.pop() ?? this.bits;
  }

  /** Set what lies within `radius` of the way from one point to another. */
  stroke(from: Point, to: Point, radius: number, value: 0 | 1): Box {
    const box = {
      left: clamp(Math.floor(Math.min(from.x, to.x) - radius), 0, this.width),
      top: clamp(Math.floor(Math.min(from.y, to.y) - radius), 0, this.height),
      right: clamp(Math.ceil(Math.max(from.x, to.x) + radius), 0, this.width),
      bottom: clamp(Math.ceil(Math.max(from.y, to.y) + radius), 0, this.height),
    };
    const along = { x: to.x - from.x, y: to.y - from.y };
    const length2 = along.x ** 2 + along.y ** 2;
    const most2 = Math.max(radius, 0.5) ** 2;
    for (let y = box.top; y < box.bottom; y++) {
      for (let x = box.left; x < box.right; x++) {
        const [dx, dy] = [x + 0.5 - from.x, y + 0.5 - from.y]; // of the pixel's centre
        const share = length2 ? clamp((dx * along.x + dy * along.y) / length2, 0, 1) : 0;
        const far2 = (dx - share * along.x) ** 2 + (dy - share * along.y) ** 2;
        if (far2 <= most2) this.bits[y * this.width + x] = value;
      }
    }
    return box;
  }

  invert(): void {
    this.begin();
    for (let at = 0; at < this.bits.length; at++) this.bits[at] = this.bits[at] ? 0 : 1;
  }

  clear(): void {
    this.begin();
    this.bits.fill(0);
  }

  /** 0 .. 1 of the picture that may change. */
  get share(): number {
    let sum = 0;
    for (const bit of this.bits) sum += bit;
    return sum / Math.max(1, this.bits.length);
  }

  /** The same mask within a larger picture, whose new pixels all may change. Earlier strokes cannot be taken back there. */
  padded(left: number, top: number, right: number, bottom: number): Mask {
    const larger = new Mask(this.width + left + right, this.height + top + bottom);
    larger.bits.fill(1);
    for (let y = 0; y < this.height; y++) {
      larger.bits.set(this.bits.subarray(y * this.width, (y + 1) * this.width), (y + top) * larger.width + left);
    }
    return larger;
  }

  /** As image editors mark what may change: RGBA, transparent there and black elsewhere. */
  rgba(): Uint8ClampedArray<ArrayBuffer> {
    const pixels = new Uint8ClampedArray(this.bits.length * 4);
    for (let at = 0; at < this.bits.length; at++) pixels[at * 4 + 3] = this.bits[at] ? 0 : 255;
    return pixels;
  }
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}

/** Pixels that a picture is given at a side to grow there: about a quarter, in steps that models take. */
export function paddingOf(side: number, step: number): number {
  return Math.max(step, Math.round(side / 4 / step) * step);
}

/** The size at which a picture is changed: its own, or, with more pixels than `most`, as many of the same shape. */
export function fitted(width: number, height: number, most: number): { width: number; height: number } {
  const scale = Math.min(1, Math.sqrt(most / (width * height)));
  const to = (side: number, other: number) =>
    Math.max(1, Math.min(Math.floor(side * scale + 1e-6), Math.floor(most / Math.max(1, other * scale))));
  return { width: to(width, height), height: to(height, width) };
}
