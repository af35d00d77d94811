/** Claims of the parts that need no browser: words, past requests, masks, styles. Run by tests/page/test_units.py. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Mask, fitted, paddingOf } from "../src/edit/mask";
import { again, furtherOf, jobsIn, mapKept } from "../src/requests";
import { type Style, unfit } from "../src/styles/wearable";
import { dollars, seconds, two } from "../src/words";

test("a time never says 60 s beside minutes, nor has more digits than mean something", () => {
  assert.equal(seconds(119.7), "2 min 0 s");
  assert.equal(seconds(89.6), "1 min 30 s");
  assert.equal(seconds(9.96), "10 s");
  assert.equal(seconds(0.996), "1.0 s");
  assert.equal(seconds(7199), "2 h 0 min");
  assert.equal(seconds(59), "59 s");
  for (let at = 0; at < 20_000; at++) assert.doesNotMatch(seconds(at / 3), /(min 60 s|h 60 min)/);
});

test("a quality is never less than nothing", () => {
  assert.equal(two(-0.004), "0.00");
  assert.equal(two(-0), "0.00");
  assert.equal(two(0.956), "0.96");
  assert.equal(two(null), "–");
  assert.equal(dollars(0), "$0");
});

test("what was of a call only is not asked for again, and everything else is", () => {
  const streamed = {
    prompt: "p",
    stream: true,
    partial_images: 2,
    response_format: "b64_json",
    webhook: "https://example.org",
    user: "u",
    safety_identifier: "s",
    seed: 7,
    steps: 4,
    guidance_scale: 1.5,
    style: { outlined: 0.7 },
    tags: ["print"],
    turns: [{}],
    quality: null,
  };
  const kept = again(streamed);
  assert.deepEqual(Object.keys(kept).sort(), ["guidance_scale", "prompt", "seed", "steps", "style", "tags", "turns"]);
  assert.deepEqual(furtherOf(streamed), { tags: ["print"] });
});

test("an address that was cut in the middle of an escape shows the jobs that are whole", () => {
  assert.deepEqual(jobsIn("/jobs/job_1,job%5F2"), ["job_1", "job_2"]);
  assert.deepEqual(jobsIn("/jobs/job_1,job%5"), ["job_1"]);
  assert.deepEqual(jobsIn("/jobs/%"), []);
  assert.deepEqual(jobsIn("/operate"), []);
});

test("what is kept in a browser may be anything", () => {
  for (const text of ["{", "null", "[1]", "3", null]) assert.deepEqual(mapKept(text), {});
  assert.deepEqual(mapKept('{"a": "up", "b": 1}'), { a: "up" });
});

test("a stroke covers its whole way, nothing further than its radius, and is taken back as one", () => {
  const mask = new Mask(40, 30);
  mask.begin();
  mask.stroke({ x: 5, y: 5 }, { x: 35, y: 25 }, 3, 1);
  for (let y = 0; y < 30; y++) {
    for (let x = 0; x < 40; x++) {
      const [dx, dy] = [x + 0.5 - 5, y + 0.5 - 5];
      const along = Math.min(1, Math.max(0, (dx * 30 + dy * 20) / 1300));
      const far = Math.hypot(dx - along * 30, dy - along * 20);
      assert.equal(mask.bits[y * 40 + x], far <= 3 ? 1 : 0, `${x}, ${y}`);
    }
  }
  const first = mask.bits.slice();
  mask.begin();
  mask.stroke({ x: 20, y: 15 }, { x: 20, y: 15 }, 9, 0);
  assert.notDeepEqual(mask.bits, first);
  mask.undo();
  assert.deepEqual(mask.bits, first);
  mask.undo();
  assert.equal(mask.share, 0);
  assert.equal(mask.canUndo, false);
});

test("inverting twice changes nothing, and a mask is transparent exactly where it may change", () => {
  const mask = new Mask(8, 8);
  mask.stroke({ x: 0, y: 0 }, { x: 4, y: 0 }, 2, 1);
  const before = mask.bits.slice();
  mask.invert();
  assert.ok(Math.abs(mask.share - (1 - before.reduce((sum, bit) => sum + bit, 0) / 64)) < 1e-9);
  mask.invert();
  assert.deepEqual(mask.bits, before);
  const rgba = mask.rgba();
  for (let at = 0; at < 64; at++) assert.equal(rgba[at * 4 + 3], before[at] ? 0 : 255);
});

test("what is added to a picture may change, and the rest keeps its mask", () => {
  const mask = new Mask(8, 8);
  mask.stroke({ x: 4, y: 4 }, { x: 4, y: 4 }, 1, 1);
  const larger = mask.padded(8, 0, 0, 16);
  assert.deepEqual([larger.width, larger.height], [16, 24]);
  for (let y = 0; y < 24; y++) {
    for (let x = 0; x < 16; x++) {
      const old = x >= 8 && y < 8;
      assert.equal(larger.bits[y * 16 + x], old ? mask.bits[y * 8 + x - 8] : 1);
    }
  }
});

test("a picture is taken as it is, and one that is too large as large as it may be", () => {
  for (const [width, height] of [[64, 64], [4000, 3000], [1, 5000], [1023, 1025], [65, 63], [1, 2 ** 22]] as const) {
    const to = fitted(width, height, 1024 * 1024);
    if (width * height <= 1024 * 1024) assert.deepEqual(to, { width, height });
    else {
      assert.ok(to.width * to.height <= 1024 * 1024 && to.width >= 1 && to.height >= 1);
      assert.ok(Math.abs(to.width / width - to.height / height) <= 1 / Math.min(to.width, to.height));
    }
  }
  assert.equal(paddingOf(64, 8), 16);
  assert.equal(paddingOf(8, 8), 8);
});

test("a style that cannot be worn says why, and one that is worn can always be taken off", () => {
  const style = (id: string, more: Partial<Style> = {}): Style => ({
    id,
    description: "",
    family: "sd15",
    kind: "lora",
    least: 0,
    most: 1,
    blends: true,
    many: true,
    worn_by: ["sd15"],
    ...more,
  });
  const all = [style("a"), style("b"), style("euler", { kind: "scheduler", many: false }), style("heun", { kind: "scheduler", many: false })];
  const models = [{ id: "sdxl", x_triptych: { kind: "model", family: "sdxl" } }] as const;
  const [a, b, euler, heun] = all as [Style, Style, Style, Style];
  assert.equal(unfit(a, { b: 1 }, all, ["sd15"], [...models]), "");
  assert.equal(unfit(a, {}, all, ["sdxl"], [...models]), "for sd15; sdxl is sdxl");
  assert.equal(unfit(heun, { euler: 1 }, all, [], []), "instead of euler only");
  assert.equal(unfit(euler, { euler: 1 }, all, [], []), "");
  assert.match(unfit(b, { a: 1, c: 1, d: 1, e: 1 }, all, [], []), /the most/);
});
