"""Every node in the real front end in every language of locales/, in both renderers."""

import pytest
from ella_lmd.tests.live.browser.front_end import RENDERERS, FrontEnd
from ella_lmd.tests.live.test_browser import SHOTS, page  # noqa: F401  (a fixture)
from ella_lmd.tools import translations

LANGUAGES = sorted(p.name for p in translations.LOCALES.iterdir())

# Names as they are shown, and the tooltips that stand in the widgets themselves, with every choice of every source.
NODES = """
const shown = {};
app.rootGraph.clear();
for (const id of value) {
  const node = LiteGraph.createNode(id);
  app.rootGraph.add(node);
  const at = (shown[id] = { title: node.title, description: node.constructor.nodeData.description, names: {}, tooltips: {} });
  const look = () => {
    for (const input of node.inputs) at.names[input.name.replaceAll(".", "_")] = input.localized_name;
    for (const { name, label, tooltip } of node.widgets ?? [])
      if (node.inputs.some((input) => input.name === name)) {
        at.names[name.replaceAll(".", "_")] = label;
        if (name.includes(".")) at.tooltips[name.replaceAll(".", "_")] = tooltip;
      }
  };
  look();
  for (const widget of [...(node.widgets ?? [])])
    if (node.constructor.nodeData.input.required?.[widget.name]?.[0] === "COMFY_DYNAMICCOMBO_V3")
      for (const choice of widget.options.values) {
        widget.value = choice;
        look();
      }
  at.outputs = node.outputs.map((output) => [output.name === output.type, output.localized_name]);
}
return shown;
"""
PLANNER = """
app.rootGraph.clear();
for (const [i, id] of ["LLMLayoutPlanner", "BoxGroundedSampler", "LatentComposer", "LMDOptions", "LayoutGuidance"].entries()) {
  const node = LiteGraph.createNode(id);
  node.pos = [i * 460, 0];
  app.rootGraph.add(node);
  if (!i) node.widgets.find((widget) => widget.name === "source").value = "language model server";
}
"""


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_front_end_shows_the_translations(page, server, language, renderer):  # noqa: F811
    texts = translations.read(translations.LOCALES / language / "nodeDefs.json")
    server.post("/api/settings", {"Comfy.Locale": language})
    try:
        front = FrontEnd(page, server, renderer, SHOTS)
        front.open()
        shown = page.run(NODES, list(texts))
        page.run(PLANNER)
        front.fit()
        front.shot(language)
    finally:
        server.post("/api/settings", {"Comfy.Locale": "en"})
    for node, text in texts.items():
        inputs, see = text.get("inputs", {}), shown[node]
        assert (see["title"], see["description"]) == (text["display_name"], text["description"])
        inputs = {name: i for name, i in inputs.items() if name in see["names"]}  # of an input that is gone: no matter
        assert {n: see["names"][n] for n in inputs} == {n: i["name"] for n, i in inputs.items()}, node
        tooltips = see["tooltips"].keys() & inputs.keys()
        assert {n: see["tooltips"][n] for n in tooltips} == {n: inputs[n]["tooltip"] for n in tooltips}, node
        # An output that is called like its type has the front end's own name for the type.
        assert all(typed or name == text["outputs"][str(n)]["name"] for n, (typed, name) in enumerate(see["outputs"]))
    assert shown["LLMLayoutPlanner"]["tooltips"]
