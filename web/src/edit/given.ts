/** The picture that is to be changed, with its mask: from a file, the clipboard, or a picture that was made here. */

import { computed, signal } from "@preact/signals";
import { here } from "../api";
import type { Body } from "../types";
import { Mask, fitted, paddingOf } from "./mask";

export interface Given {
  /** Where it came from, in words. */
  name: string;
  /** As it is sent: flat, upright, sRGB. */
  picture: HTMLCanvasElement;
  mask: Mask;
  /** What was done to it beforehand, in words. */
  notes: readonly string[];
}

type Side = "left" | "top" | "right" | "bottom";

const MOST = 2048 * 2048; // pixels
const STEP = 8; // pixels: sides of latents are whole numbers of it, so what is added is
const READ = "It cannot be read as a picture: choose a PNG, JPEG or WebP file.";

export const given = signal<Given | null>(null);
/** Counts changes of the mask, which is changed in place. */
export const painted = signal(0);
/** Whether the easel is put away, so that what was made of the picture can be seen. */
export const folded = signal(false);
/** 0 .. 1; null: as the recipe has it. */
export const strength = signal<number | null>(null);

/** 0 .. 1 of the picture that may change; without any mask all of it. */
export const share = computed(() => {
  void painted.value;
  return given.value?.mask.share ?? 0;
});

/** Take a file as the picture to change. Throws an `Error` in words. */
export async function take(file: Blob, name: string): Promise<void> {
  if (file.type && !file.type.startsWith("image/")) throw new Error(`${name} is no picture. ${READ}`);
  let source: ImageBitmap;
  try {
    source = await createImageBitmap(file);
  } catch {
    throw new Error(`${name}: ${READ}`);
  }
  try {
    set(prepared(source, name));
  } finally {
    source.close();
  }
}

/** Take a picture that this server has. Throws an `Error` in words. */
export async function takeMade(url: string, name: string): Promise<void> {
  const answer = await fetch(here(url), { cache: "no-store" });
  if (!answer.ok) throw new Error("That picture is not kept any more, or its address has expired: reload the page.");
  await take(await answer.blob(), name);
}

export function putAway(): void {
  given.value = null;
  strength.value = null;
  folded.value = false;
}

function set(to: Given): void {
  given.value = to;
  painted.value++;
  folded.value = false;
}

/** Drawn flat; where it is transparent, it may change. */
function prepared(source: ImageBitmap, name: string): Given {
  const size = fitted(source.width, source.height, MOST);
  const notes: string[] = [];
  if (size.width !== source.width || size.height !== source.height) {
    notes.push(
      `It is ${source.width} × ${source.height}, taken as ${size.width} × ${size.height}, the largest that can be painted on here.`,
    );
  }
  const picture = canvasOf(size.width, size.height);
  const pen = penOf(picture);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(source, 0, 0, size.width, size.height);
  const mask = new Mask(size.width, size.height);
  if (transparent(pen, mask)) {
    notes.push("What is transparent in it is marked to be changed.");
    pen.globalCompositeOperation = "destination-over";
    pen.fillStyle = "#808080";
    pen.fillRect(0, 0, size.width, size.height);
    pen.globalCompositeOperation = "source-over";
  }
  return { name, picture, mask, notes };
}

function transparent(pen: CanvasRenderingContext2D, mask: Mask): boolean {
  const { data } = pen.getImageData(0, 0, mask.width, mask.height);
  let any = false;
  for (let at = 0; at < mask.bits.length; at++) {
    if (data[at * 4 + 3]! >= 128) continue;
    mask.bits[at] = 1;
    any = true;
  }
  return any;
}

/** Make the picture larger at one side, by about a quarter: what is new there may change, and begins as its edge. */
export function extend(side: Side): void {
  const now = given.value;
  if (!now) return;
  const { width, height } = now.picture;
  const by = { left: 0, top: 0, right: 0, bottom: 0 };
  by[side] = paddingOf(side === "left" || side === "right" ? width : height, STEP);
  const picture = canvasOf(width + by.left + by.right, height + by.top + by.bottom);
  const pen = penOf(picture);
  pen.imageSmoothingEnabled = false;
  const edge = {
    left: () => pen.drawImage(now.picture, 0, 0, 1, height, 0, 0, by.left, height),
    top: () => pen.drawImage(now.picture, 0, 0, width, 1, 0, 0, width, by.top),
    right: () => pen.drawImage(now.picture, width - 1, 0, 1, height, width, 0, by.right, height),
    bottom: () => pen.drawImage(now.picture, 0, height - 1, width, 1, 0, height, width, by.bottom),
  };
  edge[side]();
  pen.drawImage(now.picture, by.left, by.top);
  const mask = now.mask.padded(by.left, by.top, by.right, by.bottom);
  set({ ...now, picture, mask });
}

export interface Parts {
  image: Blob;
  /** None: all of it may change. */
  mask: Blob | null;
}

/** The files of a request. */
export async function partsOf(of: Given): Promise<Parts> {
  return { image: await png(of.picture), mask: await maskOf(of.mask) };
}

const flat = new WeakMap<HTMLCanvasElement, Promise<Blob>>();

/** What a decision needs of them, which is their sizes and the mask: a few bytes, however large the picture is. */
export async function standInsOf(of: Given): Promise<Parts> {
  const { width, height } = of.picture;
  const image = flat.get(of.picture) ?? png(canvasOf(width, height, "#808080"));
  flat.set(of.picture, image);
  return { image: await image, mask: await maskOf(of.mask) };
}

async function maskOf(mask: Mask): Promise<Blob | null> {
  if (!mask.share) return null;
  const canvas = canvasOf(mask.width, mask.height);
  penOf(canvas).putImageData(new ImageData(mask.rgba(), mask.width, mask.height), 0, 0);
  return png(canvas);
}

/** A request with its files, as a form has it. */
export function formOf(body: Body, parts: Parts): FormData {
  const form = new FormData();
  form.set("image", parts.image, "picture.png");
  if (parts.mask) form.set("mask", parts.mask, "mask.png");
  for (const [name, value] of Object.entries(body)) {
    if (BROUGHT.has(name)) continue; // of a past request, in whose place these come
    if (Array.isArray(value) && value.every((one) => typeof one === "string")) value.forEach((one) => form.append(name, one));
    else form.set(name, typeof value === "object" ? JSON.stringify(value) : String(value));
  }
  return form;
}

const BROUGHT = new Set(["image", "mask", "extend", "input_fidelity"]);

function canvasOf(width: number, height: number, filled?: string): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  if (filled) {
    const pen = penOf(canvas);
    pen.fillStyle = filled;
    pen.fillRect(0, 0, width, height);
  }
  return canvas;
}

function penOf(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  if (!pen) throw new Error("This browser has no memory left for a picture of that size: choose a smaller one.");
  return pen;
}

function png(canvas: HTMLCanvasElement): Promise<Blob> {
  return new Promise((done, failed) =>
    canvas.toBlob((made) => (made ? done(made) : failed(new Error("This browser could not write the picture as PNG."))), "image/png"),
  );
}
