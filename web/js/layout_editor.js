// Puts the layout editor into its node, in both renderers. The edits live in the node's declared input "edits"; the canvas
// is a view of it, so that undo, copies, subgraphs, saved files and runs without a browser need nothing from here.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { texts } from "./layout_texts.mjs";
import { LayoutView } from "./layout_view.mjs";

const NODE = "LayoutEditor";
const SIZE = [400, 720];
const HEIGHT = 480;
const views = new Set();
const words = () => texts(app.extensionManager?.setting?.get("Comfy.Locale") ?? "en");

/** What the last run left at a node. */
const output = (node) => {
  const { graph } = node;
  return app.nodeOutputs?.[!graph || graph === app.rootGraph ? node.id : `${graph.id}:${node.id}`];
};

const input = (node, name) => node.inputs?.find((i) => i.name === name);

const address = (file) => file && api.apiURL(`/view?${new URLSearchParams({ filename: file.filename, subfolder: file.subfolder, type: file.type })}`);

/** Calls `after` behind whatever `target[name]` does now. */
function chain(target, name, after) {
  const before = target[name];
  target[name] = function (...args) {
    const result = before?.apply(this, args);
    after.apply(this, args);
    return result;
  };
}

/** The pictures that can lie behind the boxes: the connected one, and the last ones of other nodes. */
function pictures(node) {
  const shows = (n) => n !== node && (output(n)?.images?.length || `node:${n.id}` === chosen(node));
  const found = (node.graph?.nodes ?? []).filter(shows).map((n) => ({ key: `node:${n.id}`, title: `${words().picture} ${n.title} (#${n.id})` }));
  return input(node, "image")?.link != null ? [{ key: "input", title: words().connected }, ...found] : found;
}

const chosen = (node) => node.properties?.backdrop ?? (input(node, "image")?.link != null ? "input" : "");

function picture(node, key) {
  if (key === "input") return address(output(node)?.lmd_backdrop?.[0]) ?? null;
  const other = key.startsWith("node:") && node.graph?.getNodeById(Number(key.slice(5)));
  return (other && address(output(other)?.images?.at(-1))) || null;
}

/** Wheel turns zoom the graph, except in a focused field that scrolls; Nodes 2.0 sees to that by itself. */
function wheel(event) {
  if (event.target.closest("[data-node-id]")) return;
  const field = event.target.closest("[data-capture-wheel]");
  const scrolls = field && field.scrollHeight > field.clientHeight && field.contains(document.activeElement);
  if (scrolls && !event.ctrlKey) return;
  event.preventDefault();
  app.canvas.processMouseWheel(event);
}

function pan(event) {
  const act = { pointerdown: "processMouseDown", pointermove: "processMouseMove", pointerup: "processMouseUp" }[event.type];
  app.canvas[act](event);
}

/** The graph's own undo makes the node again, but Nodes 2.0 then leaves the former node's element in its place. */
function takePlace(node, view) {
  if (node.graph !== app.canvas?.graph) return;
  const there = document.querySelector(`.lg-node[data-node-id="${node.id}"] .lmd-editor`);
  if (there && there !== view.root) there.replaceWith(view.root);
}

function install(node) {
  const edits = node.widgets?.find((w) => w.name === "edits");
  if (!edits) return;
  edits.hidden = edits.options.hidden = true;
  const view = new LayoutView({
    value: () => String(edits.value ?? ""),
    setValue: (text) => {
      edits.value = text;
      edits.callback?.(text);
    },
    settled: () => app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.captureCanvasState?.(),
    linked: () => input(node, "layout")?.link != null,
    arrived: () => output(node)?.lmd_upstream?.[0],
    pictures: () => pictures(node),
    picture: (key) => picture(node, key),
    choice: () => chosen(node),
    choose: (key) => (node.properties.backdrop = key),
    runHere: () => app.queuePrompt(0, 1, node.graph === app.rootGraph ? [`${node.id}`] : undefined),
    wheel,
    pan,
  }, words());
  const canvas = node.addDOMWidget("canvas", "LMD_LAYOUT_CANVAS", view.root, {
    serialize: false, hideOnZoom: false, getMinHeight: () => HEIGHT, getValue: () => "", setValue: () => {},
  });
  canvas.serialize = false;
  const follow = () => view.refresh();
  chain(edits.options, "setValue", follow);
  for (const event of ["onExecuted", "onConfigure", "onConnectionsChange"]) chain(node, event, () => queueMicrotask(follow));
  chain(node, "onConfigure", () => requestAnimationFrame(() => takePlace(node, view)));
  chain(node, "onAdded", () => (views.add(view), view.attach()));
  chain(node, "onRemoved", () => (views.delete(view), view.detach()));
  node.setSize([Math.max(node.size[0], SIZE[0]), Math.max(node.size[1], SIZE[1])]);
}

app.registerExtension({
  name: "ella-lmd.LayoutEditor",
  init() {
    document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL("./layout_editor.css", import.meta.url).href }));
    api.addEventListener("executed", () => queueMicrotask(() => views.forEach((view) => view.refresh())));
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) install(node);
  },
  afterConfigureGraph: () => views.forEach((view) => view.refresh()),
  onNodeOutputsUpdated: () => views.forEach((view) => view.refresh()),
});
