"""Every graph in workflows/ runs through the real server to an image; the nodes' descriptions change only on purpose."""

import json
import re
import sys
import warnings
from pathlib import Path

import pytest
from ella_lmd.tools import translations
from ella_lmd.tools.workflows import (
    make_ella_workflows,
    make_layout_workflows,
    make_refinement_workflows,
    make_workflows,
)
from ella_lmd.tools.workflows.graph import to_api, without_files
from PIL import Image

ROOT = Path(sys.modules["ella_lmd"].__path__[0])
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
SNAPSHOT = Path(__file__).with_name("object_info.json")
TEXTS = Path(__file__).with_name("node_texts.json")
SMALL = {"width": 128, "height": 128, "steps": 3}


def shrink(prompt: dict) -> dict:
    """The same graph at a size that a CPU finishes in seconds."""
    for node in prompt.values():
        for name, value in SMALL.items():
            if isinstance(node["inputs"].get(name), int):
                node["inputs"][name] = value
        if "source.reply" in node["inputs"]:  # its boxes are written for 512 pixels
            text = node["inputs"]["source.reply"]
            node["inputs"]["source.reply"] = re.sub(r"\d+", lambda m: str(int(m[0]) // 4), text)
    return prompt


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_the_workflow_runs_to_a_png(server, object_info, path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    needed = {m["name"] for n in workflow["nodes"] for m in n["properties"].get("models", [])}
    here = {p.name for p in (server.base / "models").rglob("*")}
    if missing := sorted(needed - here):
        pytest.skip(f"this machine has no {', '.join(missing)}")
    entry = server.run(shrink(to_api(workflow, object_info)))
    files = server.files(entry)
    assert entry["status"]["status_str"] == "success" and files
    for file in files:
        with Image.open(file) as image:
            image.load()
            assert min(image.size) >= 64


def test_a_layout_becomes_the_prompt_of_a_model_that_takes_boxes(server, object_info):
    """The graph as far as it needs no weights: the sentence's boxes, through the host's canvas, in Ideogram 4's JSON."""
    workflow = json.loads((ROOT / "workflows" / "LMD Layout for Ideogram 4.json").read_text(encoding="utf-8"))
    needed = {m["name"] for n in workflow["nodes"] for m in n["properties"].get("models", [])}
    assert len(needed) == 4
    prompt = without_files(to_api(workflow, object_info), needed)
    entry = server.run(prompt)
    key = next(k for k, n in prompt.items() if n["_meta"]["title"] == "The prompt")
    found = json.loads(entry["outputs"][key]["text"][0])["compositional_deconstruction"]
    assert found["background"] == "A realistic photo of a park"
    elements = {e["desc"]: e["bbox"] for e in found["elements"]}
    assert elements.keys() >= {"a red cat", "a blue dog"} and len(found["elements"]) == 4
    (_, left, _, right), (_, left_dog, _, right_dog) = elements["a red cat"], elements["a blue dog"]
    assert 0 <= left < right <= 1000 and right <= left_dog < right_dog <= 1000


def test_each_graph_is_what_its_script_makes(object_info):
    makers = (make_workflows, make_layout_workflows, make_ella_workflows, make_refinement_workflows)
    builders = {name: build for maker in makers for name, build in maker.GRAPHS.items()}
    assert builders.keys() == {path.stem for path in (ROOT / "workflows").glob("*.json")}
    stale = [n for n, build in builders.items()
             if build(object_info).text() != (ROOT / "workflows" / f"{n}.json").read_text(encoding="utf-8")]  # fmt: skip
    assert stale == [], "run the scripts tools/workflows/make_*workflows.py"


def test_the_templates_are_served(server):
    templates = server.get("/workflow_templates")
    assert set(templates["ella-lmd"]) == {p.stem for p in WORKFLOWS}


def ours(info: dict) -> dict:
    return {node: i for node, i in sorted(info.items()) if i.get("python_module") == "custom_nodes.ella-lmd"}


def described(info: dict) -> dict:
    """What a saved workflow depends on: IDs, inputs with their types and defaults, outputs. File lists are left out."""

    def inputs(section: dict) -> dict:
        out = {}
        for name, spec in section.items():
            kind, options = spec[0], spec[1] if len(spec) > 1 else {}
            keep = {
                k: v for k, v in options.items() if k in ("default", "min", "max", "step", "forceInput", "advanced")
            }
            if kind == "COMFY_DYNAMICCOMBO_V3":
                keep["options"] = {
                    o["key"]: {s: inputs(p) for s, p in o["inputs"].items() if p} for o in options["options"]
                }
            elif not name.endswith("_name") and (isinstance(kind, list) or kind == "COMBO"):
                keep["options"] = options.get("options", kind)
            out[name] = ["COMBO" if isinstance(kind, list) else kind, keep]
        return out

    return {
        node: {
            "inputs": {s: inputs(p) for s, p in i["input"].items() if s != "hidden"},
            "outputs": [list(o) for o in zip(i["output_name"], i["output"])],
        }
        for node, i in ours(info).items()
    }


def test_the_nodes_are_described_as_recorded(object_info):
    """A failure shows a changed input or output: saved workflows may break. Delete the file to record it again."""
    now = described(object_info)
    if not SNAPSHOT.exists():
        TEXTS.unlink(missing_ok=True)  # recorded together
        SNAPSHOT.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        pytest.fail(f"recorded the nodes' descriptions in {SNAPSHOT.name}: look at it, then commit it")
    before = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert now.keys() == before.keys()
    for node in now:
        assert now[node] == before[node], node


def test_the_texts_are_as_recorded(object_info):
    """Other keys are other inputs, and fail; another wording is a warning. Delete the file to record it again."""
    now = translations.english(ours(object_info))
    if not TEXTS.exists():
        translations.write(TEXTS, now)
        pytest.fail(
            f"recorded the nodes' texts in {TEXTS.name}: commit it, and translate what tools/translations.py names"
        )
    before, now = translations.flat(translations.read(TEXTS)), translations.flat(now)
    assert before.keys() == now.keys()
    if changed := [".".join(path) for path in now if now[path] != before[path]]:
        warnings.warn(f"{TEXTS.name} has an older wording of {', '.join(changed)}", stacklevel=1)


def test_every_node_explains_itself(object_info):
    for node, info in ours(object_info).items():
        assert info["description"] and info["category"], node
        assert all(info["output_tooltips"]), f"{node}: an output has no tooltip"
        for section in ("required", "optional"):
            for name, spec in info["input"].get(section, {}).items():
                assert len(spec) > 1 and spec[1].get("tooltip"), f"{node}.{name} has no tooltip"


def test_the_five_nodes_are_there_by_these_ids(object_info):
    ids = {"LLMLayoutPlanner", "BoxGroundedSampler", "LatentComposer", "ELLAEncode", "TimestepAwareConditioning"}
    assert ids <= object_info.keys()


def test_bad_input_is_refused_before_anything_runs_and_the_server_goes_on(server, object_info):
    workflow = json.loads((ROOT / "workflows" / "LMD Demo.json").read_text(encoding="utf-8"))
    prompt = shrink(to_api(workflow, object_info))
    planner = next(n for n in prompt.values() if n["class_type"] == "LLMLayoutPlanner")
    planner["inputs"]["prompt"] = "   "
    with pytest.raises(RuntimeError, match="(?i)prompt"):
        server.run(prompt)
    sampler = next(n for n in prompt.values() if n["class_type"] == "BoxGroundedSampler")
    planner["inputs"]["prompt"], sampler["inputs"]["sampler_name"] = "a red circle", "dpm_adaptive"
    with pytest.raises(RuntimeError, match="dpm_adaptive"):
        server.run(prompt)
    sampler["inputs"]["sampler_name"] = "euler"
    assert server.run(prompt)["status"]["status_str"] == "success"
