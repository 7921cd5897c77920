// The layout editor's state functions, run by node's own test runner (see test_layout_state.py).
import assert from "node:assert/strict";
import { test } from "node:test";
import * as s from "../../web/js/layout_state.mjs";
import { TEXTS, texts } from "../../web/js/layout_texts.mjs";

const close = (a, b) => a.forEach((v, i) => assert.ok(Math.abs(v - b[i]) < 1e-9, `${a} is not ${b}`));
const layout = (...boxes) => ({ ...s.empty(), objects: boxes.map((box, i) => ({ phrase: `thing ${i}`, box })) });
const two = layout([0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.2, 0.2]);

test("what is written is read again", () => {
  const text = s.write("abc", { ...two, background: "a park" });
  assert.deepEqual(s.read(text), { upstream: "abc", layout: { ...two, background: "a park" } });
  assert.equal(s.read(s.write(undefined, two)).upstream, undefined);
  assert.equal(s.read("  "), null);
  assert.equal(s.read(JSON.stringify(two)).upstream, undefined, "a bare layout");
});

test("what an object has of its own is kept as it came", () => {
  const settings = { loras: [{ file: "a.safetensors", strength: 0.5, clip_strength: 1 }], words: "with a hat" };
  const mine = { ...two, objects: [{ ...two.objects[0], settings }, two.objects[1]] };
  assert.deepEqual(s.read(s.write("abc", mine)).layout, mine);
  const changed = s.duplicate(s.reorder(s.rename(s.setBox(mine, 0, [0, 0, 1, 1]), 0, "a hero"), 0, 1), 1);
  assert.deepEqual(changed.objects.map((o) => o.settings), [undefined, settings, settings]);
});

test("the order and the locks are kept, and an unordered layout is written as ever", () => {
  const mine = s.lock(s.order(two, true), 1, true);
  assert.equal(mine.ordered, true);
  assert.deepEqual(mine.objects.map((o) => o.locked), [undefined, true]);
  assert.deepEqual(s.read(s.write("abc", mine)).layout, mine);
  assert.deepEqual(s.lock(s.order(mine, false), 1, false), two);
  assert.equal(s.duplicate(mine, 1).objects[2].locked, undefined, "a copy can be moved");
});

test("the later box is in front where the layout says so", () => {
  const mine = layout([0.1, 0.1, 0.2, 0.2], [0, 0, 1, 1], [0.1, 0.1, 0.3, 0.3]);
  assert.deepEqual(s.drawingOrder(mine.objects), [1, 2, 0]);
  assert.deepEqual(s.drawingOrder(mine.objects, true), [0, 1, 2]);
  assert.deepEqual(s.boxesAt(mine.objects, 0.2, 0.2), [0, 2, 1]);
  assert.deepEqual(s.boxesAt(mine.objects, 0.2, 0.2, -1, true), [2, 1, 0]);
});

test("an object's settings are told in a few words", () => {
  assert.equal(s.glance({ phrase: "a cat" }), "");
  const settings = {
    loras: [{ file: "people/hero.safetensors", strength: 0.8, clip_strength: 1 }, { file: "ink.v2.pt" }],
    words: "sks", negative: "beard", guidance: 0.5, end: 0.5, seed: 0, frozen: false, conditioning: "abc",
  };
  assert.equal(
    s.glance({ settings }),
    "hero 0.8 · ink.v2 1 · + sks · − beard · guidance × 0.5 · guided 0 % – 50 % · seed 0 · not frozen · own conditioning",
  );
});

test("text that is no layout is refused", () => {
  const bad = ["{", "3", "[]", "{}", '{"layout":{}}', '{"layout":{"objects":[{"phrase":"","box":[0,0,1,1]}]}}'];
  bad.push('{"layout":{"objects":[{"phrase":"a","box":[0,0,0,1]}]}}', '{"layout":{"canvas":[500,512],"objects":[]}}');
  for (const text of bad) assert.throws(() => s.read(text), Error, text);
});

test("edits win until a new layout arrives, and are kept aside then", () => {
  const arrived = { layout: two, fingerprint: "A" };
  const edited = layout([0, 0, 0.5, 0.5]);
  assert.equal(s.shown("", true, undefined).kind, "waiting");
  assert.equal(s.shown("", false, undefined).kind, "scratch");
  assert.deepEqual(s.shown("", true, arrived), { layout: two, kind: "upstream", stamp: "A" });
  const same = s.shown(s.write("A", edited), true, arrived);
  assert.deepEqual([same.kind, same.layout, same.stamp], ["edits", edited, "A"]);
  const other = s.shown(s.write("B", edited), true, arrived);
  assert.deepEqual([other.kind, other.layout, other.stamp, other.edits], ["replaced", two, "A", edited]);
  assert.equal(s.shown(s.write("", edited), true, arrived).kind, "replaced", "drawn from scratch, then connected");
  assert.equal(s.shown(s.write(undefined, edited), true, arrived).kind, "edits", "for no particular layout");
  assert.equal(s.shown(s.write("B", edited), false, arrived).kind, "edits", "disconnected");
});

test("objects are added, copied, renamed, reordered and removed without touching the former layout", () => {
  const before = JSON.stringify(two);
  assert.deepEqual(s.add(two, "a cat", [0, 0, 1, 1]).objects[2], { phrase: "a cat", box: [0, 0, 1, 1] });
  const copy = s.duplicate(two, 1).objects[2];
  assert.equal(copy.phrase, "thing 1");
  assert.ok(copy.box[0] > 0.5 && copy.box[1] > 0.5);
  assert.equal(s.rename(two, 0, "a dog").objects[0].phrase, "a dog");
  assert.equal(s.rename(two, 0, "  "), two, "an empty name changes nothing");
  assert.deepEqual(s.reorder(two, 0, 1).objects.map((o) => o.phrase), ["thing 1", "thing 0"]);
  assert.deepEqual(s.remove(two, 0).objects.map((o) => o.phrase), ["thing 1"]);
  assert.equal(JSON.stringify(two), before);
  let many = s.empty();
  for (let i = 0; i < 60; i++) many = s.add(many, "a", [0, 0, 1, 1]);
  assert.equal(many.objects.length, s.MAX_OBJECTS);
});

test("a drag moves inside the canvas and resizes by the edges that it holds", () => {
  close(s.dragged([0.1, 0.2, 0.3, 0.4], "move", 0.1, -0.1), [0.2, 0.1, 0.3, 0.4]);
  close(s.dragged([0.1, 0.2, 0.3, 0.4], "move", 5, -5), [0.7, 0, 0.3, 0.4]);
  close(s.dragged([0.1, 0.2, 0.3, 0.4], "e", 0.1, 9), [0.1, 0.2, 0.4, 0.4]);
  close(s.dragged([0.1, 0.2, 0.3, 0.4], "nw", -0.1, 0.1), [0, 0.3, 0.4, 0.3]);
  close(s.dragged([0.1, 0.2, 0.3, 0.4], "w", 0.5, 0), [0.4, 0.2, 0.2, 0.4], "crossed");
  close(s.dragged([-0.5, 0, 2, 1], "move", 0.1, 0), [-0.4, 0, 2, 1], "larger than the canvas");
});

test("snapping prefers other boxes' edges to the grid and leaves still edges alone", () => {
  const near = [0.02, 0.02];
  const others = [[0.5, 0.5, 0.2, 0.2]];
  const start = [0.1, 0.1, 0.1, 0.1];
  const moved = s.snapped([0.39, 0.301, 0.1, 0.1], start, "move", others, [512, 512], near);
  close(moved.box, [0.4, 0.296875, 0.1, 0.1]);
  assert.deepEqual(moved.guides, { x: 0.5, y: null });
  const resized = s.snapped([0.1, 0.1, 0.5, 0.393], start, "se", others, [512, 512], near);
  close(resized.box, [0.1, 0.1, 38 / 64 - 0.1, 0.4]);
  close(s.snapped([0.1, 0.1, 0.1, 0.303], start, "s", [], [128, 128], [0, 0]).box, [0.1, 0.1, 0.1, 0.275]);
  assert.deepEqual(s.grid([128, 128]), [1 / 16, 1 / 16]);
  assert.deepEqual(s.grid([1024, 512]), [1 / 64, 1 / 32]);
});

test("handles, boxes and their order under the pointer", () => {
  const near = [0.02, 0.02];
  assert.equal(s.edgesAt([0.2, 0.2, 0.4, 0.4], 0.2, 0.2, near), "nw");
  assert.equal(s.edgesAt([0.2, 0.2, 0.4, 0.4], 0.61, 0.4, near), "e");
  assert.equal(s.edgesAt([0.2, 0.2, 0.4, 0.4], 0.4, 0.6, near), "s");
  assert.equal(s.edgesAt([0.2, 0.2, 0.4, 0.4], 0.4, 0.4, near), "");
  assert.equal(s.edgesAt([0.2, 0.2, 0.4, 0.4], 0.7, 0.4, near), "");
  assert.equal(s.edgesAt([0.2, 0.2, 0.02, 0.02], 0.21, 0.21, near), "", "a tiny box can still be moved");
  const stack = layout([0, 0, 1, 1], [0.4, 0.4, 0.2, 0.2]).objects;
  assert.deepEqual(s.boxesAt(stack, 0.5, 0.5), [1, 0], "the smaller one is in front");
  assert.deepEqual(s.boxesAt(stack, 0.5, 0.5, 0), [0, 1], "the selected one is in front");
  assert.deepEqual(s.boxesAt(stack, 1.5, 0.5), []);
});

test("labels lie inside the view and do not cover each other", () => {
  const same = layout(...Array.from({ length: 6 }, () => [0.3, 0.3, 0.3, 0.3])).objects;
  const plates = s.labels(same, 400, 400, (text) => text.length * 7);
  for (const p of plates) assert.ok(p.x >= 0 && p.y >= 0 && p.x + p.w <= 400 && p.y + p.h <= 400);
  const apart = (a, b) => a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y;
  plates.forEach((a, i) => plates.slice(i + 1).forEach((b) => assert.ok(apart(a, b))));
  const long = layout([0.9, 0.9, 0.05, 0.05]);
  long.objects[0].phrase = "a very long phrase about nothing at all that no view has room for";
  assert.ok(s.labels(long.objects, 300, 300, (text) => text.length * 7)[0].text.endsWith("…"));
});

test("undo goes back step by step, typing is one step", () => {
  const history = new s.History(3);
  history.push("a");
  history.push("b", "name");
  history.push("c", "name");
  assert.deepEqual([history.undo("d"), history.undo("b"), history.undo("a")], ["b", "a", null]);
  assert.deepEqual([history.redo("a"), history.redo("b"), history.redo("d")], ["b", "d", null]);
  history.push("d");
  assert.equal(history.redo("x"), null, "a change ends redo");
  for (const text of "efgh") history.push(text);
  assert.equal(history.past.length, 3);
});

test("every language has every text, and others see English", () => {
  const wanted = Object.keys(TEXTS.en);
  for (const [language, words] of Object.entries(TEXTS)) {
    assert.deepEqual(Object.keys(words), wanted, language);
    for (const [key, text] of Object.entries(words)) assert.ok(text.trim() && (language === "en" || text !== TEXTS.en[key]), `${language} ${key}`);
  }
  assert.deepEqual([texts("zh-TW"), texts("fr"), texts(undefined)], [TEXTS.zh, TEXTS.en, TEXTS.en]);
});

test("a label takes time in proportion to its text", () => {
  const measured = (n) => {
    let letters = 0;
    s.labels([{ phrase: "x".repeat(n), box: [0, 0, 0.5, 0.5] }], 300, 300, (text) => ((letters += text.length), text.length * 7));
    return letters;
  };
  assert.ok(measured(80000) < 4.5 * measured(20000) && measured(80000) < 1000000, `${measured(20000)} then ${measured(80000)} letters measured`);
  const label = (phrase) => s.labels([{ phrase, box: [0, 0, 0.5, 0.5] }], 300, 300, (text) => text.length * 7)[0].text;
  assert.equal(label("a cat"), "1 a cat");
  assert.equal(label("x".repeat(500)), `1 ${"x".repeat(20)}…`);
  assert.equal(label("\u{1f431}"), "1 \u{1f431}");
});

test("text over a limit is refused in words", () => {
  const edits = (more, thing = {}) => JSON.stringify({ layout: { objects: [{ phrase: "a", box: [0, 0, 1, 1], ...thing }], ...more } });
  assert.ok(s.read(edits({})));
  assert.throws(() => s.read(edits({}, { phrase: "x".repeat(1001) })), /1001 characters, at most 1000/);
  assert.throws(() => s.read(edits({ background: "x".repeat(20001) })), /20001 characters/);
  assert.throws(() => s.read(edits({ canvas: [16392, 512] })), /16384/);
  assert.throws(() => s.read(edits({}, { box: [0, 0, 1e6, 1] })), /fractions/);
  assert.throws(() => s.read(" ".repeat(500001)), /500001 characters/);
});

test("reading edits takes time in proportion to their length", () => {
  const spent = (text) => {
    let best = Infinity;
    for (let i = 0; i < 3; i++) {
      const start = performance.now();
      try { s.read(text); } catch { /* in words */ }
      best = Math.min(best, performance.now() - start);
    }
    return best;
  };
  for (const piece of ["\n", "[", "{", '"', "\\", '{"a":', "1,"]) {
    const [small, large] = [20000, 80000].map((n) => spent(piece.repeat(n)));
    assert.ok(large < Math.max(50, 6 * small), `${JSON.stringify(piece)}: ${small} then ${large} ms`);
  }
});
