// The front end translates the tooltips of the inputs that a node always has. Those behind a choice, such as the planner's
// sources, it shows as the server sends them, in English; so their translations are put into the definition itself.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const MODULE = `custom_nodes.${decodeURIComponent(/extensions\/([^/]+)\//.exec(import.meta.url)[1])}`;
let answer; // one request for all nodes

async function textsOf(node) {
  answer ??= api.fetchApi("/i18n").then((response) => response.json()).catch(() => ({}));
  return (await answer)[app.extensionManager.setting.get("Comfy.Locale")]?.nodeDefs?.[node]?.inputs ?? {};
}

function translate(sections, texts, prefix = "") {
  for (const section of ["required", "optional"])
    for (const [name, [type, spec]] of Object.entries(sections?.[section] ?? {})) {
      const key = (prefix + name).replaceAll(".", "_");
      if (prefix && texts[key]?.tooltip) spec.tooltip = texts[key].tooltip;
      if (type === "COMFY_DYNAMICCOMBO_V3") for (const option of spec.options) translate(option.inputs, texts, `${key}_`);
    }
}

app.registerExtension({
  name: "ella-lmd.TranslatedTooltips",
  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.python_module === MODULE) translate(nodeData.input, await textsOf(nodeData.name));
  },
});
