// The layout editor's page elements: toolbar, canvas, list of objects and fields. It knows nothing of ComfyUI; what it
// needs comes in as `host`:
//   value()               the edits' text                      setValue(text)     stores it
//   settled()             a change is complete                 linked()           is a layout connected?
//   arrived()             the last layout that a run brought   pictures()         [{ key, title }] to lay behind
//   picture(key)          address of such a picture            choice()/choose(k) the chosen one
//   wheel(event)          a wheel turn that is not ours        pan(event)         middle button events
//   runHere()             runs the graph up to the editor
import * as state from "./layout_state.mjs";

const HANDLE = 7;
const NEAR = { mouse: 6, pen: 8, touch: 16 };
const SNAP = 6;
const NAME = "an object";
const CURSORS = { n: "ns", s: "ns", e: "ew", w: "ew", nw: "nwse", se: "nwse", ne: "nesw", sw: "nesw" };
const FONT = "12px system-ui, sans-serif";

/** An element with properties, `on` listeners and children. */
function make(tag, { on = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  element.append(...children);
  return element;
}

export class LayoutView {
  /** `words` are the texts of layout_texts.mjs in one language. */
  constructor(host, words) {
    Object.assign(this, { host, words });
    this.history = new state.History();
    this.selected = -1;
    this.drag = null;
    this.snapping = true;
    this.textView = false;
    this.backdrop = null;
    this.root = this.#build();
    this.observer = new ResizeObserver(() => this.#requestDraw());
    // The graph does not take the focus when it is clicked; keys after that are the graph's.
    this.leave = (e) => {
      const mine = document.activeElement;
      if (this.root.contains(mine) && !this.root.contains(e.target)) mine.blur();
    };
    this.refresh();
  }

  /** Called when the node enters a graph; `detach` when it leaves it. Before, between and after nothing is held. */
  attach() {
    this.observer.observe(this.stage);
    document.addEventListener("pointerdown", this.leave, true);
    this.refresh();
  }

  detach() {
    this.observer.disconnect();
    document.removeEventListener("pointerdown", this.leave, true);
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.backdrop = null;
  }

  // --- Data ----------------------------------------------------------------------------------------------------------

  /** Reads the edits again and shows them; called after every change from inside or outside. */
  refresh() {
    const text = this.host.value();
    try {
      this.now = state.shown(text, this.host.linked(), this.host.arrived());
      this.fault = "";
    } catch (error) {
      this.now = { layout: state.empty(), kind: "fault", stamp: undefined };
      this.fault = `${this.words.fault} ${error.message}`;
      this.textView = true;
    }
    if (this.arrival !== this.now.stamp || this.selected >= this.layout.objects.length) this.selected = -1;
    this.arrival = this.now.stamp;
    this.#show();
  }

  /** Nothing can be edited while the text is unreadable or the connected layout has not been seen. */
  get locked() {
    return this.now.kind === "fault" || this.now.kind === "waiting";
  }

  get layout() {
    return this.drag?.layout ?? this.now.layout;
  }

  /** Stores an edited layout as one step of undo; steps with the same `key` in a row are joined. */
  change(layout, key = null) {
    this.store(state.write(this.now.stamp, layout), key);
  }

  store(text, key = null) {
    const former = this.host.value();
    if (text === former) return;
    this.history.push(former, key);
    this.#set(text, key === null);
  }

  undo() {
    this.#set(this.history.undo(this.host.value()));
  }

  redo() {
    this.#set(this.history.redo(this.host.value()));
  }

  #set(text, settled = true) {
    if (text === null) return;
    this.host.setValue(text);
    this.refresh();
    if (settled) this.host.settled();
  }

  // --- Commands ------------------------------------------------------------------------------------------------------

  add(box = [0.375, 0.375, 0.25, 0.25]) {
    if (this.locked) return;
    const layout = state.add(this.layout, NAME, box);
    if (layout === this.layout) return;
    this.selected = layout.objects.length - 1;
    this.change(layout);
    this.editName(this.selected);
  }

  duplicate() {
    if (this.selected < 0) return;
    const layout = state.duplicate(this.layout, this.selected);
    if (layout === this.layout) return;
    this.selected = layout.objects.length - 1;
    this.change(layout);
  }

  remove() {
    const i = this.selected;
    if (i < 0 || this.layout.objects[i].locked) return;
    this.selected = Math.min(i, this.layout.objects.length - 2);
    this.change(state.remove(this.layout, i));
  }

  reorder(by) {
    const i = this.selected;
    const to = i + by;
    if (i < 0 || to < 0 || to >= this.layout.objects.length) return;
    this.selected = to;
    this.change(state.reorder(this.layout, i, to));
  }

  lock() {
    const object = this.layout.objects[this.selected];
    if (object) this.change(state.lock(this.layout, this.selected, !object.locked));
  }

  order() {
    if (!this.locked) this.change(state.order(this.layout, !this.layout.ordered));
  }

  select(i) {
    if (i === this.selected) return;
    this.selected = i;
    this.#show();
  }

  nudge(dx, dy, size) {
    if (this.selected < 0) return;
    const [width, height] = this.layout.canvas;
    const { box, locked } = this.layout.objects[this.selected];
    if (locked) return;
    const next = state.dragged(box, size ? "se" : "move", dx / width, dy / height);
    if (!state.tooSmall(next)) this.change(state.setBox(this.layout, this.selected, next), `nudge ${this.selected} ${size}`);
  }

  // --- Page elements -------------------------------------------------------------------------------------------------

  #build() {
    const { words } = this;
    const button = (icon, title, act) =>
      make("button", { type: "button", title, ariaLabel: title, on: { click: act } }, make("i", { className: `pi pi-${icon}` }));
    this.buttons = {
      add: button("plus", words.add, () => this.add()),
      copy: button("copy", words.copy, () => this.duplicate()),
      remove: button("trash", words.remove, () => this.remove()),
      up: button("arrow-up", words.up, () => this.reorder(-1)),
      down: button("arrow-down", words.down, () => this.reorder(1)),
      order: button("clone", words.order, () => this.order()),
      lock: button("lock", words.lock, () => this.lock()),
      undo: button("undo", words.undo, () => this.undo()),
      redo: button("refresh", words.redo, () => this.redo()),
      snap: button("th-large", words.snap, () => {
        this.snapping = !this.snapping;
        this.#show();
      }),
      text: make("button", { type: "button", title: words.text, textContent: "JSON", on: { click: () => this.#flipText() } }),
      run: button("play", words.run, () => this.host.runHere()),
      reset: make("button", { type: "button", className: "lmd-last", on: { click: () => this.store("") } }),
    };
    this.canvas = make("canvas", { on: this.#pointerListeners() });
    // Holds the focus for the canvas: the host leaves keys, copy and paste alone that belong to a text area.
    this.keys = make("textarea", {
      className: "lmd-keys", readOnly: true, tabIndex: 0,
      on: { keydown: (e) => this.#key(e), focus: () => this.#requestDraw(), blur: () => this.#requestDraw() },
    });
    this.rename = make("input", {
      className: "lmd-rename", type: "text", hidden: true, maxLength: state.MAX_PHRASE, ariaLabel: words.rename,
      on: { keydown: (e) => this.#renameKey(e), blur: () => this.#endName(true) },
    });
    this.stage = make("div", { className: "lmd-stage" }, this.canvas, this.keys, this.rename);
    this.text = make("textarea", {
      className: "lmd-text", ariaLabel: words.text, spellcheck: false, maxLength: state.MAX_EDITS,
      on: { input: () => this.store(this.text.value, "text"), change: () => this.host.settled() },
    });
    this.told = make("span");
    this.back = make("button", { type: "button", textContent: words.back, on: { click: () => this.change(this.now.edits) } });
    this.status = make("div", { className: "lmd-status", role: "status" }, this.told, this.back);
    this.list = make("div", { className: "lmd-list" });
    this.list.dataset.empty = words.empty;
    const field = (key, label) => {
      const input = make("textarea", {
        rows: 2, maxLength: state.MAX_TEXT, ariaLabel: label, placeholder: label, title: label,
        on: { input: () => this.change({ ...this.layout, [key]: input.value }, key), change: () => this.#typed() },
      });
      return input;
    };
    this.background = field("background", words.background);
    this.negative = field("negative", words.negative);
    const length = (axis, label) =>
      make("input", {
        type: "number", min: state.LEAST_CANVAS, max: state.MOST_CANVAS, step: state.CELL, ariaLabel: label, title: label,
        on: {
          change: (e) => {
            const canvas = [...this.layout.canvas];
            canvas[axis] = state.side(e.target.value);
            if (canvas[axis] !== this.layout.canvas[axis]) this.change({ ...this.layout, canvas });
            fill(e.target, canvas[axis], true);
          },
        },
      });
    this.sides = [length(0, words.width), length(1, words.height)];
    this.choice = make("select", {
      ariaLabel: words.behind, title: words.behind,
      on: {
        pointerdown: () => this.#listPictures(),
        focus: () => this.#listPictures(),
        change: () => {
          this.host.choose(this.choice.value);
          this.#show();
          this.host.settled();
        },
      },
    });
    const size = make("div", { className: "lmd-row" }, this.sides[0], make("span", { textContent: "×" }), this.sides[1], this.choice);
    const { add, copy, remove, up, down, order, lock, undo, redo, snap, text, run, reset } = this.buttons;
    for (const scrolling of [this.text, this.list, this.background, this.negative]) scrolling.dataset.captureWheel = "true";
    // A pressed button leaves the focus with the canvas, so that undo goes on being the editor's.
    const hold = (e) => (e.preventDefault(), this.keys.focus({ preventScroll: true }));
    // Text keeps the browser's menu; elsewhere it is the node's, where the renderer has one.
    const contextmenu = (e) => (e.target.matches("input, textarea") ? e.stopPropagation() : e.preventDefault());
    return make(
      "div",
      { className: "lmd-editor", on: { wheel: (e) => this.host.wheel(e), contextmenu } },
      make("div", { className: "lmd-bar", role: "toolbar", ariaLabel: words.tools, on: { pointerdown: hold } }, add, copy, remove, up, down, order, lock, undo, redo, snap, text, run, reset),
      this.stage, this.text, this.status, this.list, this.background, this.negative, size,
    );
  }

  #typed() {
    this.history.key = null;
    this.host.settled();
  }

  #flipText() {
    this.textView = !this.textView || Boolean(this.fault);
    this.#show();
  }

  /** Brings every element in line with the data. */
  #show() {
    const { objects, canvas, background, negative } = this.layout;
    const some = this.selected >= 0;
    const b = this.buttons;
    const fixed = Boolean(some && objects[this.selected].locked);
    b.copy.disabled = b.lock.disabled = !some || this.textView;
    b.remove.disabled = !some || this.textView || fixed;
    b.lock.ariaPressed = String(fixed);
    b.order.disabled = this.textView || this.locked;
    b.order.ariaPressed = String(Boolean(this.layout.ordered));
    b.add.disabled = this.textView || this.locked || objects.length >= state.MAX_OBJECTS;
    b.up.disabled = !some || this.selected === 0;
    b.down.disabled = !some || this.selected === objects.length - 1;
    b.undo.disabled = !this.history.past.length;
    b.redo.disabled = !this.history.future.length;
    b.snap.ariaPressed = String(this.snapping);
    b.text.ariaPressed = String(this.textView);
    const linked = this.host.linked();
    b.run.hidden = !linked;
    b.reset.textContent = linked ? this.words.reset : this.words.clear;
    b.reset.title = linked ? this.words.resetTitle : this.words.clearTitle;
    b.reset.disabled = !this.host.value();
    this.stage.hidden = this.list.hidden = this.textView;
    this.text.hidden = !this.textView;
    if (this.textView && document.activeElement !== this.text) this.text.value = this.host.value();
    for (const input of [...this.sides, this.background, this.negative]) input.disabled = this.locked;
    this.sides.forEach((input, axis) => fill(input, this.locked ? "" : canvas[axis]));
    fill(this.background, background);
    fill(this.negative, negative);
    this.#showStatus();
    this.#showList();
    this.#showPicture();
    this.#requestDraw();
  }

  #showStatus() {
    const { kind } = this.now;
    const chosen = this.layout.objects[this.selected];
    const told = kind === "fault" ? this.fault : this.words[kind];
    this.status.classList.toggle("lmd-bad", kind === "fault");
    this.back.hidden = kind !== "replaced";
    if (chosen && kind !== "fault" && kind !== "replaced") {
      const [width, height] = this.layout.canvas;
      const [x, y, w, h] = chosen.box.map((v, i) => Math.round(v * (i % 2 ? height : width)));
      const own = state.glance(chosen);
      this.told.textContent = `${this.selected + 1} ${chosen.phrase}: ${w} × ${h} at ${x}, ${y}${own && ` · ${own}`}`;
    } else this.told.textContent = told;
    this.told.title = this.told.textContent;
    this.keys.ariaLabel = `${this.words.canvas} ${told}`;
  }

  #showList() {
    const { objects } = this.layout;
    while (this.list.children.length > objects.length) this.list.lastChild.remove();
    while (this.list.children.length < objects.length) this.list.append(this.#row(this.list.children.length));
    objects.forEach((object, i) => {
      const row = this.list.children[i];
      const [, name, own] = row.children;
      row.classList.toggle("lmd-chosen", i === this.selected);
      fill(name, object.phrase);
      own.textContent = (object.locked ? "🔒 " : "") + state.glance(object);
      own.title = own.textContent;
    });
    const chosen = this.list.children[this.selected];
    if (chosen) this.list.scrollTop = Math.min(Math.max(this.list.scrollTop, chosen.offsetTop + chosen.offsetHeight - this.list.clientHeight), chosen.offsetTop);
  }

  #row(i) {
    const hue = state.colour(i);
    const number = make("span", { textContent: i + 1 });
    Object.assign(number.style, { background: hue, color: state.isDark(hue) ? "#fff" : "#202020" });
    const name = make("input", {
      type: "text", maxLength: state.MAX_PHRASE, ariaLabel: `${this.words.name} ${i + 1}`, title: this.words.nameTitle,
      on: {
        focus: () => this.select(i),
        input: () => this.change(state.rename(this.layout, i, name.value), `name ${i}`),
        change: () => (fill(name, this.layout.objects[i]?.phrase ?? "", true), this.#typed()),
        keydown: (e) => e.key === "Enter" && this.keys.focus(),
      },
    });
    return make("label", { className: "lmd-row", on: { pointerdown: () => this.select(i) } }, number, name, make("small"));
  }

  // --- Picture behind the boxes --------------------------------------------------------------------------------------

  #listPictures() {
    const wanted = [{ key: "", title: this.words.noPicture }, ...this.host.pictures()];
    const now = [...this.choice.options].map((o) => o.value + o.text).join();
    if (now !== wanted.map((o) => o.key + o.title).join())
      this.choice.replaceChildren(...wanted.map(({ key, title }) => make("option", { value: key, textContent: title })));
    this.choice.value = this.host.choice();
    if (this.choice.selectedIndex < 0) this.choice.value = ""; // the chosen node is not in this graph
  }

  #showPicture() {
    this.#listPictures();
    const address = this.host.picture(this.host.choice());
    if (address === (this.backdrop?.address ?? null)) return;
    this.backdrop = address && { address, image: null };
    if (!address) return;
    const image = make("img", { crossOrigin: "anonymous" });
    const mine = this.backdrop;
    image.onload = () => {
      mine.image = image;
      this.#requestDraw();
    };
    image.src = address;
  }

  // --- Drawing -------------------------------------------------------------------------------------------------------

  #requestDraw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.#draw();
    });
  }

  /** Fits the canvas into the stage and gives it the pixels that the screen shows, zoomed graph included. */
  #fit() {
    const [width, height] = this.layout.canvas;
    const room = [this.stage.clientWidth - 2, this.stage.clientHeight - 2];
    const scale = Math.min(room[0] / width, room[1] / height);
    if (!(scale > 0)) return null;
    const [w, h] = [width * scale, height * scale];
    Object.assign(this.canvas.style, { width: `${w}px`, height: `${h}px` });
    const zoom = this.stage.getBoundingClientRect().width / this.stage.offsetWidth || 1;
    const pixels = Math.min((window.devicePixelRatio || 1) * Math.max(zoom, 1), 4);
    const [bw, bh] = [Math.max(1, Math.round(w * pixels)), Math.max(1, Math.round(h * pixels))];
    if (this.canvas.width !== bw || this.canvas.height !== bh) [this.canvas.width, this.canvas.height] = [bw, bh];
    this.zoom = zoom;
    return { w, h, pixels };
  }

  #draw() {
    const fit = this.#fit();
    if (!fit) return;
    const { w, h, pixels } = fit;
    const pen = this.canvas.getContext("2d");
    pen.setTransform(pixels, 0, 0, pixels, 0, 0);
    pen.clearRect(0, 0, w, h);
    const picture = this.backdrop?.image;
    if (picture) pen.drawImage(picture, 0, 0, w, h);
    else this.#drawGrid(pen, w, h);
    const { objects } = this.layout;
    pen.font = FONT;
    this.plates = state.labels(objects, w, h, (text) => pen.measureText(text).width, 16, this.layout.ordered);
    const order = state.drawingOrder(objects, this.layout.ordered).filter((i) => i !== this.selected);
    if (this.selected >= 0) order.push(this.selected);
    for (const i of order) this.#drawBox(pen, objects[i].box, i, w, h, Boolean(picture));
    for (const i of order) this.#drawPlate(pen, i);
    if (this.selected >= 0) this.#drawHandles(pen, objects[this.selected].box, w, h);
    if (this.drag?.guides) this.#drawGuides(pen, w, h);
  }

  #drawGrid(pen, w, h) {
    pen.strokeStyle = getComputedStyle(this.canvas).color;
    pen.globalAlpha = 0.15;
    pen.lineWidth = 1;
    pen.beginPath();
    for (let i = 1; i < 8; i++) {
      pen.moveTo((w * i) / 8, 0);
      pen.lineTo((w * i) / 8, h);
      pen.moveTo(0, (h * i) / 8);
      pen.lineTo(w, (h * i) / 8);
    }
    pen.stroke();
    pen.globalAlpha = 1;
  }

  #drawBox(pen, [bx, by, bw, bh], i, w, h, clear) {
    const [x, y, width, height] = [bx * w, by * h, bw * w, bh * h];
    const chosen = i === this.selected;
    pen.fillStyle = state.colour(i) + (clear ? (chosen ? "30" : "14") : chosen ? "60" : "3A");
    pen.fillRect(x, y, width, height);
    if (clear || chosen) {
      pen.strokeStyle = "#000000A0";
      pen.lineWidth = 4;
      pen.strokeRect(x, y, width, height);
    }
    pen.strokeStyle = state.colour(i);
    pen.lineWidth = 2;
    pen.strokeRect(x, y, width, height);
  }

  #drawHandles(pen, [x, y, width, height], w, h) {
    pen.fillStyle = "#fff";
    pen.strokeStyle = document.activeElement === this.keys ? "#000" : "#666";
    pen.lineWidth = 1;
    for (const [hx, hy] of [[0, 0], [0.5, 0], [1, 0], [0, 0.5], [1, 0.5], [0, 1], [0.5, 1], [1, 1]]) {
      const [px, py] = [(x + hx * width) * w - HANDLE / 2, (y + hy * height) * h - HANDLE / 2];
      pen.fillRect(px, py, HANDLE, HANDLE);
      pen.strokeRect(px, py, HANDLE, HANDLE);
    }
  }

  #drawPlate(pen, i) {
    const { text, x, y, w, h } = this.plates[i];
    const hue = state.colour(i);
    pen.fillStyle = hue;
    pen.fillRect(x, y, w, h);
    pen.fillStyle = state.isDark(hue) ? "#fff" : "#202020";
    pen.textBaseline = "middle";
    pen.fillText(text, x + 4, y + h / 2 + 0.5);
  }

  #drawGuides(pen, w, h) {
    const { x, y } = this.drag.guides;
    pen.strokeStyle = getComputedStyle(this.canvas).color;
    pen.lineWidth = 1;
    pen.setLineDash([4, 3]);
    pen.beginPath();
    if (x !== null) pen.moveTo(x * w, 0), pen.lineTo(x * w, h);
    if (y !== null) pen.moveTo(0, y * h), pen.lineTo(w, y * h);
    pen.stroke();
    pen.setLineDash([]);
  }

  // --- Pointer -------------------------------------------------------------------------------------------------------

  #pointerListeners() {
    return {
      pointerdown: (e) => this.#down(e),
      pointermove: (e) => this.#moved(e),
      pointerup: (e) => this.#up(e),
      pointercancel: () => this.#cancel(),
      pointerenter: () => this.#requestDraw(),
      dblclick: (e) => this.#double(e),
    };
  }

  /** The pointer in canvas fractions, and how far in fractions `distance` screen-independent pixels reach. */
  #at(e, distance = 0) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    const near = distance * (this.zoom || 1);
    return { x: (e.clientX - left) / width, y: (e.clientY - top) / height, near: [near / width, near / height] };
  }

  /** What lies under the pointer: { index, mode }, or null on an empty place. Handles come first, then labels, then boxes. */
  #under(e) {
    const { objects } = this.layout;
    const { x, y, near } = this.#at(e, NEAR[e.pointerType] ?? NEAR.mouse);
    const fixed = objects[this.selected]?.locked;
    const edges = this.selected >= 0 && !fixed ? state.edgesAt(objects[this.selected].box, x, y, near) : "";
    if (edges) return { index: this.selected, mode: edges };
    const [px, py] = [x * this.canvas.clientWidth, y * this.canvas.clientHeight];
    const on = (p) => px >= p.x && px <= p.x + p.w && py >= p.y && py <= p.y + p.h;
    const labelled = (this.plates ?? []).findIndex(on);
    const boxes = state.boxesAt(objects, x, y, this.selected, this.layout.ordered);
    const index = labelled >= 0 && labelled < objects.length ? labelled : boxes[0];
    return index === undefined ? null : { index, mode: "move" };
  }

  #down(e) {
    if (e.button === 1) return this.host.pan(e);
    if (e.button !== 0 || this.locked) return;
    e.preventDefault();
    this.#endName(true);
    this.keys.focus({ preventScroll: true });
    this.canvas.setPointerCapture(e.pointerId);
    const { x, y } = this.#at(e);
    const hit = this.#under(e);
    this.drag = { pointer: e.pointerId, from: [x, y], mode: hit?.mode ?? "draw", index: hit?.index ?? -1, before: this.selected, guides: null };
    this.select(this.drag.index);
    this.#requestDraw();
  }

  #moved(e) {
    if (e.buttons & 4) return this.host.pan(e);
    if (!this.drag) {
      const under = this.#under(e);
      this.canvas.style.cursor = this.locked ? "not-allowed" : !under ? "crosshair" : under.mode === "move" ? "move" : `${CURSORS[under.mode]}-resize`;
      return;
    }
    if (e.pointerId !== this.drag.pointer) return;
    const { drag } = this;
    const { x, y, near } = this.#at(e, SNAP);
    const [dx, dy] = [x - drag.from[0], y - drag.from[1]];
    if (!drag.layout) {
      if (Math.abs(dx) < near[0] / 2 && Math.abs(dy) < near[1] / 2) return;
      const { layout } = this.now;
      if (layout.objects[drag.index]?.locked) return;
      if (drag.mode === "draw") {
        drag.start = [...this.#snapPoint(drag.from, layout.canvas, e), 0, 0];
        drag.base = state.add(layout, NAME, drag.start);
        if (drag.base === layout) return;
        drag.index = layout.objects.length;
      } else {
        drag.base = layout;
        drag.start = layout.objects[drag.index].box;
      }
    }
    const mode = drag.mode === "draw" ? "se" : drag.mode;
    const box = state.dragged(drag.start, mode, dx, dy);
    const others = drag.base.objects.filter((_, i) => i !== drag.index).map((o) => o.box);
    const fixed = this.snapping !== e.altKey ? state.snapped(box, drag.start, mode, others, drag.base.canvas, near) : { box, guides: null };
    drag.layout = state.setBox(drag.base, drag.index, fixed.box);
    drag.guides = fixed.guides;
    this.selected = drag.index;
    this.#showStatus();
    this.#requestDraw();
  }

  #snapPoint(point, canvas, e) {
    if (this.snapping === e.altKey) return point;
    return state.grid(canvas).map((step, axis) => Math.min(Math.max(Math.round(point[axis] / step) * step, 0), 1));
  }

  #up(e) {
    if (e.button === 1) return this.host.pan(e);
    if (e.pointerId !== this.drag?.pointer) return;
    const { mode, index, layout, before } = this.drag;
    this.drag = null;
    if (layout && !state.tooSmall(layout.objects[index].box)) {
      this.change(layout);
      if (mode === "draw") this.editName(index);
    } else if (layout) this.selected = mode === "draw" ? -1 : index;
    else if (e.altKey && index === before) this.#nextBelow(e);
    this.#show();
  }

  /** Alt and click again: the next box below the selected one. */
  #nextBelow(e) {
    const { x, y } = this.#at(e);
    const below = state.boxesAt(this.layout.objects, x, y, -1, this.layout.ordered);
    if (below.length) this.selected = below[(below.indexOf(this.selected) + 1) % below.length];
  }

  #cancel() {
    this.drag = null;
    this.refresh();
  }

  #double(e) {
    if (this.locked) return;
    const under = this.#under(e);
    if (under) return this.editName(under.index);
    const { x, y } = this.#at(e);
    this.add(state.inside([x - 0.125, y - 0.125, 0.25, 0.25]));
  }

  // --- Naming on the canvas ------------------------------------------------------------------------------------------

  editName(i) {
    const object = this.layout.objects[i];
    if (!object || this.textView) return;
    this.select(i);
    const { offsetLeft, offsetTop, clientWidth, clientHeight } = this.canvas;
    const [x, y, w] = object.box;
    const width = Math.min(Math.max(w * clientWidth, 130), clientWidth);
    const left = Math.min(Math.max(x * clientWidth, 0), clientWidth - width);
    Object.assign(this.rename.style, {
      left: `${offsetLeft + left}px`, top: `${offsetTop + Math.min(Math.max(y * clientHeight, 0), clientHeight - 24)}px`,
      width: `${width}px`, borderColor: state.colour(i),
    });
    this.renaming = i;
    this.rename.value = object.phrase;
    this.rename.hidden = false;
    this.rename.focus({ preventScroll: true });
    this.rename.select();
  }

  #endName(keep) {
    if (this.rename.hidden) return;
    this.rename.hidden = true;
    const i = this.renaming;
    if (keep && this.layout.objects[i] && this.layout.objects[i].phrase !== this.rename.value)
      this.change(state.rename(this.layout, i, this.rename.value));
  }

  #renameKey(e) {
    if (e.key !== "Enter" && e.key !== "Escape") return;
    e.stopPropagation();
    this.#endName(e.key === "Enter");
    this.keys.focus({ preventScroll: true });
  }

  // --- Keys ----------------------------------------------------------------------------------------------------------

  #key(e) {
    const control = e.ctrlKey || e.metaKey;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    const step = e.altKey ? 1 : e.shiftKey ? 4 * state.CELL : state.CELL;
    const acts = {
      Delete: () => this.remove(),
      Backspace: () => this.remove(),
      Escape: () => (this.drag ? this.#cancel() : this.select(-1)),
      Enter: () => this.editName(this.selected),
      F2: () => this.editName(this.selected),
      n: () => this.add(),
      "[": () => this.reorder(-1),
      "]": () => this.reorder(1),
      l: () => this.lock(),
      PageUp: () => this.select(Math.max(this.selected - 1, 0)),
      PageDown: () => this.select(Math.min(this.selected + 1, this.layout.objects.length - 1)),
    };
    const withControl = {
      z: () => (e.shiftKey ? this.redo() : this.undo()),
      y: () => this.redo(),
      d: () => this.duplicate(),
    };
    const act = arrows ? () => this.nudge(arrows[0] * step, arrows[1] * step, control) : control ? withControl[e.key.toLowerCase()] : acts[e.key];
    if (!act || (this.locked && !(e.key.toLowerCase() in { z: 1, y: 1 }))) return;
    e.preventDefault();
    e.stopPropagation();
    act();
    if (arrows) this.host.settled();
  }
}

/** Sets a field's value, unless the user is typing in it. */
function fill(input, value, always = false) {
  if ((always || document.activeElement !== input) && input.value !== String(value)) input.value = value;
}
