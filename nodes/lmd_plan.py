"""LMD stage 1: the layout planner, the request for a language model of the user's own, and the layout as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from comfy_api.latest import io

from ..lmd.layout import Layout
from ..lmd.pictures.layout_picture import as_image
from ..lmd.planner import request
from ..lmd.planner.box_filter import fill_canvas
from ..lmd.planner.dialogue import Request
from ..lmd.planner.quality import tidy
from ..lmd.planner.reply import parse, parse_strict, to_layout
from ..lmd.prompts import overall_negative, overall_prompt
from .host.llm import plan as llm_plan
from .host.llm import servers
from .host.llm.host_model import GENERATING
from .host.llm.servers import MODEL, REPLY, SERVER
from .host.llm.waiting import in_thread
from .host.ui import show_text, view
from .types import LayoutType, canvas_side

CATEGORY = "LMD"
OFFLINE = "offline planner"
TOLERANT, STRICT = "tolerant", "strict"
_CANVAS = "the size of the final image."


def _talk_inputs() -> list:
    """What both kinds of language models take."""
    return [
        io.Int.Input(
            "seed", default=0, min=0, max=2**64 - 1, control_after_generate=True,
            tooltip="Another seed gives another layout. The same one gives the kept reply again, without asking.",
        ),
        io.Int.Input(
            "examples", default=len(request.EXAMPLES), min=0, max=len(request.EXAMPLES),
            tooltip="Worked examples in the question. Small models need all of them; strong ones need only 1.",
        ),
        io.Int.Input(
            "re_asks", default=1, min=0, max=5,
            tooltip="How many times to ask again, listing the faults, when an answer is faulty: counts, colours, places, "
            "excluded things, overlaps.",
        ),
        io.Boolean.Input(
            "repair", default=True,
            tooltip="Correct boxes that are still in the wrong place or too small. Names and how many there are never "
            "change; every correction is shown.",
        ),
        io.Float.Input(
            "temperature", default=request.TEMPERATURE, min=0.01, max=2.0, step=0.01, advanced=True,
            tooltip="How freely the model chooses its words; 0.25 as published.",
        ),
        io.Int.Input(
            "max_tokens", default=request.MAX_TOKENS, min=64, max=32768, advanced=True,
            tooltip="The longest answer. Raise it for models that think before they answer.",
        ),
        LayoutType.Input(
            "previous", optional=True,
            tooltip="A layout to change by `instruction`; everything it doesn't mention keeps its exact box.",
        ),
        io.String.Input(
            "instruction", multiline=True, default="",
            tooltip='What to change in the previous layout, such as "move the dog to the left of the cat, add a red '
            'ball". Only used with `previous`; empty leaves it unchanged.',
        ),
    ]  # fmt: skip


@dataclass(frozen=True)
class _Planned:
    """A layout, and what to show on the node of how it came about."""

    layout: Layout
    told: Sequence[str]


@dataclass(frozen=True)
class _Talk:
    """The inputs that both kinds of language models take."""

    seed: int
    examples: int
    re_asks: int
    repair: bool
    temperature: float
    max_tokens: int
    previous: Layout | None = None
    instruction: str = ""

    @classmethod
    def of(cls, source: dict) -> _Talk:
        """From the host's nested inputs. Raises ValueError naming those that a hand-made API prompt lacks."""
        needed = ("seed", "examples", "re_asks", "repair", "temperature", "max_tokens")
        if missing := [name for name in needed if source.get(name) is None]:
            raise ValueError(f'the source "{source["source"]}" lacks {", ".join(f"source.{m}" for m in missing)}')
        values = {name: source[name] for name in needed}
        return cls(**values, previous=source.get("previous"), instruction=(source.get("instruction") or "").strip())

    @property
    def unchanged(self) -> bool:
        return self.previous is not None and not self.instruction

    def wanted(self, prompt: str, width: int, height: int) -> Request:
        change = self.instruction if self.previous is not None else ""
        return Request(prompt, width, height, self.examples, self.re_asks, self.repair, False, self.previous, change)

    @property
    def decoding(self) -> llm_plan.Decoding:
        return llm_plan.Decoding(self.seed, self.temperature, self.max_tokens)


async def _planned(cls, prompt: str, width: int, height: int, source: dict) -> _Planned:
    kind = source["source"]
    if kind == OFFLINE:
        from ..lmd.planner.offline import plan

        layout = plan(prompt, width, height)
        return _Planned(layout, layout.notes)
    if kind == REPLY:
        layout = _read(source, prompt, width, height)
        return _Planned(layout, layout.notes)
    talk = _Talk.of(source)
    if talk.unchanged:
        layout = cast(Layout, talk.previous).on_canvas(width, height)
        return _Planned(layout, ("the instruction is empty, so the previous layout is unchanged",))
    wanted = talk.wanted(prompt, width, height)
    if kind == MODEL:
        outcome = llm_plan.with_clip(source.get("clip"), wanted, talk.decoding)
        return _Planned(outcome.layout, outcome.report)
    server = servers.named(source.get("server") or "")
    outcome = await in_thread(
        lambda stopped: llm_plan.with_server(
            server, wanted, talk.decoding, lambda text: show_text(cls, text), stopped=stopped
        )
    )
    return _Planned(outcome.layout, (*servers.listed().faults, *outcome.report))


def _read(source: dict, prompt: str, width: int, height: int) -> Layout:
    """The layout in a pasted reply."""
    strict = source.get("parser") == STRICT
    reply = (parse_strict if strict else parse)(source.get("reply") or "")
    layout = to_layout(reply, width, height, prompt.strip(), exact=strict)
    return layout if strict else tidy(layout)


class LLMLayoutPlanner(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LLMLayoutPlanner",
            display_name="LLM Layout Planner",
            category=CATEGORY,
            description="Turns a prompt into a layout: one captioned box per object, a background prompt and a negative "
            "prompt. The offline planner needs no language model; a reply of any language model, a server such as Ollama "
            "or a text model of ComfyUI can be used instead.",
            search_aliases=[
                "LMD",
                "layout",
                "bounding boxes",
                "LLM-grounded diffusion",
                "regional prompt",
                "scene graph",
            ],
            inputs=[
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="A watercolor painting of two cats on a wooden table next to a window",
                    tooltip="What the image should show, in English sentences: things, how many, what they look like, "
                    "where they are, the place, the style, and what must not appear.",
                ),
                canvas_side("width", _CANVAS),
                canvas_side("height", _CANVAS),
                io.DynamicCombo.Input(
                    "source",
                    options=[
                        io.DynamicCombo.Option(OFFLINE, []),
                        io.DynamicCombo.Option(
                            REPLY,
                            [
                                io.String.Input(
                                    "reply",
                                    multiline=True,
                                    default="",
                                    tooltip="A language model's whole answer, connected from any node that gives "
                                    "text or "
                                    "pasted from a chat. LMDLayoutInstruction builds the question. JSON works as well.",
                                ),
                                io.Combo.Input(
                                    "parser",
                                    options=[TOLERANT, STRICT],
                                    default=TOLERANT,
                                    advanced=True,
                                    tooltip="tolerant understands code fences, talk around the answer and JSON, and corrects "
                                    "boxes; strict is the published grammar and box filter (512 x 512 boxes), for "
                                    "comparing.",
                                ),
                            ],
                        ),
                        io.DynamicCombo.Option(
                            SERVER,
                            [
                                io.Combo.Input(
                                    "server",
                                    options=servers.names(),
                                    tooltip="A server of this machine's own list: Ollama, LM Studio, llama.cpp and "
                                    "vLLM at their usual local addresses, and what servers.json in ComfyUI's user "
                                    "folder __ella_lmd adds. A workflow never holds addresses or keys.",
                                ),
                                *_talk_inputs(),
                            ],
                        ),
                        io.DynamicCombo.Option(
                            MODEL,
                            [
                                io.Clip.Input("clip", tooltip=f"A text model that can write ({GENERATING})."),
                                *_talk_inputs(),
                            ],
                        ),
                    ],
                    tooltip="offline planner: built in, needs nothing. reply text: the answer of a language model. "
                    "language model server: Ollama and others, by name. host text generation: a text model that "
                    "ComfyUI itself loads.",
                ),
                io.Boolean.Input(
                    "scale_boxes",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Enlarge the layout, at most three times, until it reaches the canvas's width or height.",
                ),
            ],
            outputs=[
                LayoutType.Output(
                    display_name="layout", tooltip="Boxes and prompts for the LMD and layout guidance nodes."
                ),
                io.String.Output(
                    display_name="overall_prompt",
                    tooltip="Background and all objects with their numbers, for the positive text encoder.",
                ),
                io.String.Output(display_name="background_prompt", tooltip="The place and the style alone."),
                io.String.Output(
                    display_name="negative_prompt",
                    tooltip="What the prompt rules out, followed by LMD's own list, for the negative text encoder.",
                ),
                io.BoundingBox.Output(
                    display_name="bboxes",
                    tooltip="The boxes in pixels, phrases in label and metadata, for other box nodes.",
                ),
                io.Image.Output(display_name="picture", tooltip="The layout drawn as numbered boxes."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, source=None, **_inputs):
        """A server whose entry has changed is asked again."""
        return servers.source_fingerprint(source)

    @classmethod
    async def execute(
        cls, prompt: str, width: int, height: int, source: dict | None = None, scale_boxes: bool = False
    ) -> io.NodeOutput:
        chosen = servers.known_source(source, (OFFLINE, REPLY, SERVER, MODEL))
        planned = await _planned(cls, prompt, width, height, chosen)
        layout = fill_canvas(planned.layout) if scale_boxes else planned.layout
        overall = overall_prompt(layout).prompt
        negative = overall_negative(layout)
        picture = as_image(layout)
        boxes = layout.to_bounding_boxes()
        return io.NodeOutput(
            layout, overall, layout.background, negative, boxes, picture, ui=view(cls, picture, planned.told)
        )


class LMDLayoutInstruction(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDLayoutInstruction",
            display_name="LMD Layout Instruction",
            category=CATEGORY,
            description="Builds the question that makes a language model write a layout. Give it to any text node or "
            "paste it into a chat, then bring the answer to LLMLayoutPlanner as reply text.",
            search_aliases=["LMD prompt template", "layout prompt", "LLM instruction", "in-context examples"],
            inputs=[
                io.String.Input("prompt", multiline=True, default="", tooltip="What the image should show."),
                canvas_side("width", _CANVAS),
                canvas_side("height", _CANVAS),
                io.Int.Input(
                    "examples",
                    default=len(request.EXAMPLES),
                    min=0,
                    max=len(request.EXAMPLES),
                    tooltip="Worked examples in the question. Small models need all of them; strong ones need only 1.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="instruction", tooltip='The whole question; it ends in "Objects:".'),
            ],
        )

    @classmethod
    def execute(cls, prompt: str, width: int, height: int, examples: int) -> io.NodeOutput:
        return io.NodeOutput(request.text(prompt, width, height, examples))


class LMDLayoutPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDLayoutPreview",
            display_name="LMD Layout Preview",
            category=CATEGORY,
            description="Draws a layout as numbered boxes with its background and negative prompt.",
            search_aliases=["show layout", "draw bounding boxes", "layout picture"],
            inputs=[LayoutType.Input("layout", tooltip="A layout, for instance from LLMLayoutPlanner.")],
            outputs=[io.Image.Output(display_name="picture", tooltip="The layout drawn as numbered boxes.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, layout) -> io.NodeOutput:
        picture = as_image(layout)
        return io.NodeOutput(picture, ui=view(cls, picture, layout.notes))


NODES = [LLMLayoutPlanner, LMDLayoutInstruction, LMDLayoutPreview]
