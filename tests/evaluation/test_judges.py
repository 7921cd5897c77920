"""Judges: small random models of the real classes, scripted servers and processes."""

import json
import sys

import pytest
import small_models
import torch
from ella_lmd.evaluation import judges
from ella_lmd.evaluation.benchmarks.base import ASK, COLOUR, DETECT, PROBABILITY, Question
from ella_lmd.evaluation.judges import vision_server
from ella_lmd.evaluation.judges.vlm import chosen, plain
from ella_lmd.evaluation.spread import LaneDied
from ella_lmd.tests.scripted_server import ScriptedServer
from PIL import Image

PICTURE = Image.radial_gradient("L").resize((48, 32)).convert("RGB")
CUPS = Question.of(DETECT, queries=["a photo of a cup", "a photo of a dog"])
YES = Question.of(PROBABILITY, question="Is it? Answer in one word.", answers=["Yes", "yes", " yes", " Yes"])
CAT = Question.of(ASK, question="Is there a cat?")
RED = Question.of(COLOUR, name="cup", box=[0.1, 0.1, 0.5, 0.6], colours=["red", "blue", "green"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("kind", ["owlvit", "owlv2"])
def test_owl_scores_a_box_by_its_best_query(folder, kind):
    source = small_models.owl(folder / kind, kind)
    panel = judges.panel(f"{kind}:{source}")
    assert panel.name == f"{kind} {kind}"
    (judge,) = panel.judges
    found = judge.answer(PICTURE, CUPS)
    inputs = judge.processor(text=[CUPS["queries"]], images=PICTURE, return_tensors="pt", truncation=True)
    with torch.inference_mode():
        raw = judge.model(**inputs)
    odds, labels = raw.logits[0].sigmoid().max(-1)
    wanted = sorted(((float(s), int(n)) for s, n in zip(odds, labels, strict=True) if s > 0.05), reverse=True)
    assert len(wanted) > 3 and [d["label"] for d in found] == [n for _, n in wanted]
    assert [d["score"] for d in found] == pytest.approx([s for s, _ in wanted], abs=1e-5)
    best = int(odds.argmax())
    x, y, w, h = raw.pred_boxes[0, best].tolist()
    box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    # OWLv2 pads the 48 x 32 picture to a square: heights are shares of its longer side.
    scale = [1, 48 / 32, 1, 48 / 32] if kind == "owlv2" else [1, 1, 1, 1]
    clipped = [v * s for v, s in zip(box, scale, strict=True)]
    assert found[0]["box"] == pytest.approx(clipped, abs=1e-4) or found[0]["box"] == pytest.approx(
        [min(max(v, 0), 1) for v in clipped], abs=1e-4
    )


def test_mask2former_names_cocos_classes_only(folder):
    judge = judges.panel("mask2former:" + small_models.mask2former(folder / "mask2former")).judges[0]
    found = judge.answer(PICTURE, CUPS)
    assert all(d["label"] in (0, 1) and d["by"] == "mask2former" for d in found)
    assert all(0 <= d["box"][0] < d["box"][2] <= 1 and 0 <= d["box"][1] < d["box"][3] <= 1 for d in found)
    with pytest.raises(ValueError, match="knows no class 'unicorn'"):
        judge.answer(PICTURE, Question.of(DETECT, queries=["a photo of a unicorn"]))


def test_clip_chooses_the_colour_whose_texts_are_nearest(folder):
    judge = judges.panel("clip:" + small_models.clip(folder / "clip")).judges[0]
    assert judge.answer(PICTURE, RED) in RED["colours"]
    texts = judge._classifier("cup", RED["colours"])
    assert texts.shape == (3, 16) and torch.allclose(texts.norm(dim=-1), torch.ones(3), atol=1e-5)


def test_a_vision_language_model_answers_and_gives_probabilities(folder):
    judge = judges.panel("vlm:" + small_models.vlm(folder / "vlm")).judges[0]
    first = judge.answer(PICTURE, CAT)
    assert isinstance(first, str) and first == judge.answer(PICTURE, CAT)
    odds = judge.answer(PICTURE, YES)
    assert 0 < odds < 1
    assert odds > judge.answer(PICTURE, Question.of(PROBABILITY, question=YES["question"], answers=["Yes"])) > 0
    assert odds != judge.answer(PICTURE.rotate(180), YES), "the picture is looked at"


def test_a_vision_server_is_sent_the_picture(monkeypatch):
    monkeypatch.setenv("EVALUATION_API_KEY", "secret-key")
    monkeypatch.setattr(vision_server, "WAITS", (0.01,))
    top = [{"token": "Yes", "logprob": -1.0}, {"token": " yes", "logprob": -2.0}, {"token": "No", "logprob": -0.9}]
    soft = json.dumps({"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [{"top_logprobs": top}]}}]})
    busy = {"status": 503, "body": ""}
    with ScriptedServer(
        busy, "Yes.", {"body": soft}, "It looks Red", {"status": 500, "body": "secret-key?"}, "no"
    ) as server:
        (judge,) = judges.panel(f"server:{server.address}#some/model").judges
        assert judge.name == "server model"
        assert judge.answer(PICTURE, CAT) == "yes"
        assert judge.answer(PICTURE, YES) == pytest.approx(0.3679 + 0.1353, abs=1e-3)
        assert judge.answer(PICTURE, RED) == "red"
        with pytest.raises(ValueError, match=r"answers 500: \*\*\*\?"):
            judge.answer(PICTURE, CAT)
        with pytest.raises(ValueError, match="gives no logprobs"):
            judge.answer(PICTURE, YES)
        image, text = server.chats[0]["body"]["messages"][0]["content"]
        assert image["image_url"]["url"].startswith("data:image/png;base64,") and "Is there a cat?" in text["text"]
        assert server.chats[0]["headers"]["Authorization"] == "Bearer secret-key"
    with pytest.raises(LaneDied, match="can't be reached"):
        judge.answer(PICTURE, CAT)


WORKER = """
import json, sys
print("loading ...")
print(json.dumps({"ready": True, "name": "scripted", "kinds": ["ask"]}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    question = asked["about"]["question"]
    if "die" in question:
        sys.exit(3)
    said = {"error": "too dark"} if "dark" in question else {"answer": "yes" if open(asked["image"], "rb").read(4) else "no"}
    print("chatter", json.dumps({"id": -1}), flush=True)
    print(json.dumps({"id": asked["id"], **said}), flush=True)
"""


def test_a_judge_in_a_process_of_its_own(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    panel = judges.panel(f"process:{sys.executable} {tmp_path / 'worker.py'}")
    (judge,) = panel.judges
    assert panel.name == "process worker" and judge.kinds == {"ask"}
    assert [judge.answer(PICTURE, CAT) for _ in range(2)] == ["yes", "yes"]
    with pytest.raises(ValueError, match="too dark"):
        judge.answer(PICTURE, Question.of(ASK, question="Is it dark?"))
    with pytest.raises(LaneDied, match="has ended"):
        judge.answer(PICTURE, Question.of(ASK, question="die"))
    panel.close()
    with pytest.raises(LaneDied, match="has ended"):
        judges.panel(f"gone=process:{sys.executable} -c pass")


def test_names_hold_no_address():
    told = {
        "owlvit": "owlvit owlvit-base-patch32",
        "vlm:Qwen/Qwen3-VL-8B-Instruct": "vlm Qwen3-VL-8B-Instruct",
        "server:http://user:pw@10.0.0.1/v1#qwen3-vl": "server qwen3-vl",
        "process:/opt/x/bin/python evaluation/judges/mplug_worker.py --key k": "process mplug_worker",
        "mPLUG-large=process:/opt/x/bin/python worker.py": "mPLUG-large",
        "demo": "demo",
    }
    assert {text: judges.label(text) for text in told} == told
    assert judges.labels("owlv2+clip") == ["owlv2 owlv2-base-patch16-ensemble", "clip clip-vit-large-patch14"]
    for wrong in ("nobody", "vlm", "server:http://x/v1", "process:"):
        with pytest.raises(ValueError, match="names no judge"):
            judges.panel(wrong)


def test_only_the_first_word_of_an_answer_counts():
    assert [plain(t) for t in ("Yes.", " no, there is none", "**Yes**", "")] == ["yes", "no", "yes", ""]
    assert chosen("A Blue one", ["red", "blue"]) == "blue" and chosen("infrared", ["red", "blue"]) == "infrared"
