// The layout editor's state without any page: reading and writing the edits, moving boxes, snapping, hits, labels, undo.
//
// A layout is { prompt, canvas: [width, height], objects: [{ phrase, box: [x, y, w, h], settings?, locked? }], background,
// negative, ordered? } with boxes in fractions of the canvas; `settings` are kept as they come. Where boxes overlap, the
// smaller one is in front, if `ordered` the later one. A locked box is not moved, and only the editor knows. Functions return new layouts and leave their arguments alone.

import { CANVAS_MULTIPLE, LEAST_CANVAS, MAX_COORDINATE, MAX_EDITS, MAX_OBJECTS, MAX_PHRASE, MAX_TEXT, MOST_CANVAS } from "./limits.mjs";

export * from "./limits.mjs";

// The palette of lmd/pictures/layout_picture.py: colours that colour-blind eyes tell apart, neighbours differing in lightness.
export const PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800", "#7A7A7A"];
export const CELL = CANVAS_MULTIPLE;
const GRID_LINES = 64;
const SMALLEST = 0.01;

export const colour = (index) => PALETTE[index % PALETTE.length];

export function isDark(hex) {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return 0.299 * r + 0.587 * g + 0.114 * b < 140;
}

// --- The edits' text -------------------------------------------------------------------------------------------------

/** The edits in `text` as { upstream, layout }, null for an empty text. Throws an Error that names what is wrong. */
export function read(text) {
  if (text.length > MAX_EDITS) throw new Error(`the text has ${text.length} characters, and at most ${MAX_EDITS} are read`);
  if (!text.trim()) return null;
  const data = JSON.parse(text);
  if (data === null || typeof data !== "object" || Array.isArray(data)) throw new Error("expected a JSON object");
  const bare = !("layout" in data);
  const layout = bare ? data : data.layout;
  if (!layout || !Array.isArray(layout.objects)) throw new Error('"layout" must be an object with a list "objects"');
  const canvas = layout.canvas ?? [512, 512];
  const rightSize = (v) => Number.isInteger(v) && v >= LEAST_CANVAS && v <= MOST_CANVAS && v % CELL === 0;
  if (!Array.isArray(canvas) || canvas.length !== 2 || !canvas.every(rightSize))
    throw new Error(`"canvas" must be [width, height], multiples of ${CELL} from ${LEAST_CANVAS} to ${MOST_CANVAS}`);
  if (layout.objects.length > MAX_OBJECTS) throw new Error(`a layout holds at most ${MAX_OBJECTS} objects`);
  const objects = layout.objects.map((o, i) => {
    const near = (v) => Number.isFinite(v) && Math.abs(v) <= MAX_COORDINATE;
    const good = Array.isArray(o?.box) && o.box.length === 4 && o.box.every(near) && o.box[2] > 0 && o.box[3] > 0;
    if (!good) throw new Error(`object ${i}: "box" must be [x, y, w, h] in fractions, w and h above 0`);
    if (typeof o.phrase !== "string" || !o.phrase.trim()) throw new Error(`object ${i} needs a "phrase"`);
    if (o.phrase.length > MAX_PHRASE) throw new Error(`object ${i} has a phrase of ${o.phrase.length} characters, at most ${MAX_PHRASE} are read`);
    return own({ phrase: o.phrase, box: [...o.box] }, o);
  });
  const text_ = (key) => {
    const value = String(layout[key] ?? "");
    if (key !== "prompt" && value.length > MAX_TEXT) throw new Error(`"${key}" has ${value.length} characters, at most ${MAX_TEXT} are read`);
    return value;
  };
  return {
    upstream: bare ? undefined : data.upstream ?? undefined,
    layout: {
      prompt: text_("prompt"), canvas: [...canvas], objects, background: text_("background"), negative: text_("negative"),
      ...(layout.ordered === true ? { ordered: true } : {}),
    },
  };
}

/** `object` with the settings and the lock of `from`, where it has any. */
const own = (object, { settings, locked } = {}) => ({
  ...object,
  ...(settings && Object.keys(settings).length ? { settings } : {}),
  ...(locked === true ? { locked } : {}),
});

/** The text of edits; `upstream` is the fingerprint of the edited layout, undefined for edits that always win. */
export function write(upstream, layout) {
  const rounded = (box) => box.map((v) => Math.round(v * 1e6) / 1e6);
  const objects = layout.objects.map((o) => own({ phrase: o.phrase, box: rounded(o.box) }, o));
  return JSON.stringify({ ...(upstream === undefined ? {} : { upstream }), layout: { ...layout, objects } });
}

export const empty = () => ({ prompt: "", canvas: [512, 512], objects: [], background: "", negative: "" });

/**
 * What the canvas shows. `text` is the edits, `linked` whether a layout is connected, `arrived` the last one that a run
 * brought, as { layout, fingerprint }, or nothing.
 *
 * Returns { layout, kind, stamp, edits }: kind is "edits", "upstream", "replaced" (edits set aside for a new layout),
 * "waiting" (no run yet) or "scratch"; stamp is the fingerprint for the next edit; edits are what was set aside, if any.
 */
export function shown(text, linked, arrived) {
  const edits = read(text);
  const upstream = linked && arrived?.layout ? arrived : null;
  if (!edits) {
    if (upstream) return { layout: upstream.layout, kind: "upstream", stamp: upstream.fingerprint };
    return { layout: empty(), kind: linked ? "waiting" : "scratch", stamp: "" };
  }
  const replaced = upstream && edits.upstream !== undefined && edits.upstream !== upstream.fingerprint;
  if (replaced) return { layout: upstream.layout, kind: "replaced", stamp: upstream.fingerprint, edits: edits.layout };
  return { layout: edits.layout, kind: "edits", stamp: edits.upstream };
}

// --- Changes ---------------------------------------------------------------------------------------------------------

const withObjects = (layout, objects) => ({ ...layout, objects });

export const setBox = (layout, i, box) => withObjects(layout, layout.objects.map((o, j) => (j === i ? { ...o, box } : o)));

export const rename = (layout, i, phrase) =>
  phrase.trim() ? withObjects(layout, layout.objects.map((o, j) => (j === i ? { ...o, phrase } : o))) : layout;

export const remove = (layout, i) => withObjects(layout, layout.objects.filter((_, j) => j !== i));

/** Adds an object at the end of the list; a full layout stays as it is. */
export function add(layout, phrase, box, from) {
  return layout.objects.length < MAX_OBJECTS ? withObjects(layout, [...layout.objects, own({ phrase, box }, from)]) : layout;
}

/** A copy of object `i`, a little to the lower right where there is room. */
export function duplicate(layout, i) {
  const { phrase, box, settings } = layout.objects[i];
  const [gx, gy] = grid(layout.canvas);
  return add(layout, phrase, inside([box[0] + 4 * gx, box[1] + 4 * gy, box[2], box[3]]), { settings });
}

/** Locks or unlocks object `i`. */
export const lock = (layout, i, locked) => withObjects(layout, layout.objects.map((o, j) => (j === i ? own({ phrase: o.phrase, box: o.box }, { ...o, locked }) : o)));

/** Puts the later box of the list in front, or again the smaller one. */
export function order(layout, ordered) {
  const { ordered: _, ...rest } = layout;
  return ordered ? { ...rest, ordered } : rest;
}

/** What an object has of its own in a few words, "" for nothing. */
export function glance({ settings = {} }) {
  const { loras = [], words, negative, guidance, start, end, seed, frozen, conditioning } = settings;
  const name = (file) => String(file).replace(/^.*[\\/]/, "").replace(/\.[^.]*$/, "");
  const percent = (v) => `${Math.round(v * 100)} %`;
  return [
    ...loras.map((l) => `${name(l.file)} ${l.strength ?? 1}`),
    words && `+ ${words}`,
    negative && `− ${negative}`,
    guidance !== undefined && `guidance × ${guidance}`,
    (start !== undefined || end !== undefined) && `guided ${percent(start ?? 0)} – ${percent(end ?? 1)}`,
    typeof seed === "number" && `seed ${seed}`,
    frozen === false && "not frozen",
    conditioning && "own conditioning",
  ].filter(Boolean).join(" · ");
}

/** Moves object `i` to place `to` of the list. */
export function reorder(layout, i, to) {
  const objects = [...layout.objects];
  const [taken] = objects.splice(i, 1);
  objects.splice(Math.max(0, Math.min(to, objects.length)), 0, taken);
  return withObjects(layout, objects);
}

/** The nearest canvas side that is allowed. */
export const side = (value) => Math.max(LEAST_CANVAS, Math.min(MOST_CANVAS, Math.round((Number(value) || 512) / CELL) * CELL));

// --- Geometry --------------------------------------------------------------------------------------------------------

const between = (v, low, high) => Math.min(Math.max(v, low), high);

/** `box` moved into the canvas as far as it fits. */
export function inside([x, y, w, h]) {
  return [between(x, Math.min(0, 1 - w), Math.max(0, 1 - w)), between(y, Math.min(0, 1 - h), Math.max(0, 1 - h)), w, h];
}

/** The snapping grid in fractions: latent cells, joined on large canvases. */
export function grid([width, height]) {
  const step = CELL * Math.ceil(Math.max(width, height) / CELL / GRID_LINES);
  return [step / width, step / height];
}

/** `box` after a drag by (dx, dy). `mode` is "move" or the moved edges, such as "n" or "se"; an edge may cross its twin. */
export function dragged([x, y, w, h], mode, dx, dy) {
  if (mode === "move") return inside([x + dx, y + dy, w, h]);
  const xs = [x + (mode.includes("w") ? dx : 0), x + w + (mode.includes("e") ? dx : 0)].map((v) => between(v, 0, 1));
  const ys = [y + (mode.includes("n") ? dy : 0), y + h + (mode.includes("s") ? dy : 0)].map((v) => between(v, 0, 1));
  const [x0, y0] = [Math.min(...xs), Math.min(...ys)];
  return [x0, y0, Math.max(...xs) - x0, Math.max(...ys) - y0];
}

export const tooSmall = (box) => box[2] < SMALLEST || box[3] < SMALLEST;

/**
 * `box` drawn to edges and middles of other boxes and the canvas that lie within `near` = [x, y], else to the grid.
 * `start` is the box before the drag: an edge that did not move is not drawn. Returns { box, guides: { x, y } }, the lines
 * that it was drawn to, or null.
 */
export function snapped(box, start, mode, others, canvas, near) {
  const out = [...box];
  const guides = { x: null, y: null };
  const steps = grid(canvas);
  for (const axis of [0, 1]) {
    const lines = [0, 1, ...others.flatMap((o) => [o[axis], o[axis] + o[axis + 2]])];
    const middles = [0.5, ...others.map((o) => o[axis] + o[axis + 2] / 2)];
    const [low, size] = [box[axis], box[axis + 2]];
    const still = (v) => mode !== "move" && (Math.abs(v - start[axis]) < 1e-9 || Math.abs(v - start[axis] - start[axis + 2]) < 1e-9);
    const ends = [low, low + size].map((v) => ({ v, lines, still: still(v) }));
    const points = mode === "move" ? [...ends, { v: low + size / 2, lines: middles, still: false }] : ends;
    let best = null;
    for (const { v, lines: to, still } of points)
      for (const line of still ? [] : to)
        if (Math.abs(line - v) <= near[axis] && (!best || Math.abs(line - v) < Math.abs(best.by))) best = { by: line - v, v, line };
    if (best) guides[axis ? "y" : "x"] = best.line;
    const toGrid = (v) => ({ v, by: between(Math.round(v / steps[axis]) * steps[axis], 0, 1) - v });
    if (mode === "move") out[axis] += (best ?? toGrid(low)).by;
    else
      for (const end of ends) {
        if (end.still) continue;
        const by = (best && best.v === end.v ? best : toGrid(end.v)).by;
        if (end.v === low) [out[axis], out[axis + 2]] = [out[axis] + by, out[axis + 2] - by];
        else out[axis + 2] += by;
      }
  }
  return { box: mode === "move" ? inside(out) : out, guides };
}

const area = ({ box }) => box[2] * box[3];

/** Indices from back to front: the largest box first, equal ones by their place in the list; if `ordered` all by that. */
export const drawingOrder = (objects, ordered = false) =>
  objects.map((_, i) => i).sort((a, b) => (ordered ? 0 : area(objects[b]) - area(objects[a])) || a - b);

/** The edges of `box` near the point, as "nw" or "e", or "" for none. `near` reaches outwards and a little inwards. */
export function edgesAt([x, y, w, h], px, py, near) {
  if (px < x - near[0] || px > x + w + near[0] || py < y - near[1] || py > y + h + near[1]) return "";
  const edge = (p, low, size, reach, names) => {
    const inner = Math.min(reach, size / 4);
    return p <= low + inner ? names[0] : p >= low + size - inner ? names[1] : "";
  };
  return edge(py, y, h, near[1], "ns") + edge(px, x, w, near[0], "we");
}

const contains = ([x, y, w, h], px, py) => px >= x && px <= x + w && py >= y && py <= y + h;

/** All boxes under a point, the front one first; the selected one is in front. */
export function boxesAt(objects, px, py, selected = -1, ordered = false) {
  const found = drawingOrder(objects, ordered).reverse().filter((i) => contains(objects[i].box, px, py));
  return found.includes(selected) ? [selected, ...found.filter((i) => i !== selected)] : found;
}

// --- Labels ----------------------------------------------------------------------------------------------------------

/**
 * Number and phrase of every object on a plate that covers no other plate where that is possible, as in lmd/pictures/layout_picture.py.
 * `measure(text)` gives a width in the pixels of the `width` x `height` view. Returns [{ text, x, y, w, h }] by index.
 */
export function labels(objects, width, height, measure, line = 16, ordered = false) {
  const out = new Array(objects.length);
  const taken = [];
  for (const i of drawingOrder(objects, ordered).reverse()) {
    const [x, y, w, h] = objects[i].box;
    const [x0, y0, x1, y1] = [x * width, y * height, (x + w) * width, (y + h) * height];
    const full = shortened(`${i + 1} ${objects[i].phrase}`, Math.max((x1 - x0) * 1.1, 60), measure);
    let best = null;
    for (const text of [full, `${i + 1}`]) {
      const wide = measure(text) + 8;
      const places = [[x0, y0], [x0, y0 - line], [x0, y1], [x0, y1 - line], [x1 - wide, y0], [x0, (y0 + y1 - line) / 2], [x1, y0]];
      for (const [px, py] of places) {
        const plate = { text, x: between(px, 0, Math.max(width - wide, 0)), y: between(py, 0, Math.max(height - line, 0)), w: wide, h: line };
        const hit = taken.reduce((sum, t) => sum + shared(plate, t), 0);
        if (!best || hit < best.hit - 1) best = { hit, plate };
        if (!hit) break;
      }
      if (!best.hit) break;
    }
    taken.push(best.plate);
    out[i] = best.plate;
  }
  return out;
}

const shared = (a, b) =>
  Math.max(0, Math.min(a.x + a.w, b.x + b.w) - Math.max(a.x, b.x)) * Math.max(0, Math.min(a.y + a.h, b.y + b.h) - Math.max(a.y, b.y));

/** The text, or its beginning with an ellipsis, in `room`; at least four characters. What is far too long is never measured whole. */
function shortened(text, room, measure) {
  let high = 64;
  while (high < text.length && measure(text.slice(0, high)) <= room) high *= 2;
  if (high >= text.length && measure(text) <= room) return text;
  let low = Math.min(4, text.length);
  high = Math.min(high, text.length);
  while (low < high - 1) {
    const middle = (low + high) >> 1;
    if (measure(`${text.slice(0, middle)}…`) <= room) low = middle;
    else high = middle;
  }
  return low >= text.length ? text : `${text.slice(0, low).trimEnd()}…`;
}

// --- Undo ------------------------------------------------------------------------------------------------------------

/** Former texts of the edits. Changes with the same `key` in a row are one step: letters typed into one field. */
export class History {
  constructor(limit = 100) {
    Object.assign(this, { limit, past: [], future: [], key: null });
  }

  push(former, key = null) {
    if (key === null || key !== this.key) this.past.push(former);
    if (this.past.length > this.limit) this.past.shift();
    this.future = [];
    this.key = key;
  }

  /** The text to go back to from `current`, or null. */
  undo(current) {
    return this.#step(this.past, this.future, current);
  }

  redo(current) {
    return this.#step(this.future, this.past, current);
  }

  #step(from, to, current) {
    this.key = null;
    if (!from.length) return null;
    to.push(current);
    return from.pop();
  }
}
