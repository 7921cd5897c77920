"""Caption upsampling: the long form of a short prompt, from a language model."""

from __future__ import annotations

from typing import Any, cast

from comfy_api.latest import io

from ..chat.answer import Answer, answer_in
from ..ella.upsample import caption_from_reply, doubts, needs_upsampling, upsampling_request
from ..lmd.limits import MAX_REPLY, within
from .ella import CATEGORY
from .host.llm import servers
from .host.llm.host_model import GENERATING, generate
from .host.llm.plan import caption_from_server
from .host.llm.servers import MODEL, REPLY, SERVER
from .host.llm.waiting import in_thread
from .host.ui import text_view

CAPTION_TOKENS = 256


def _seed() -> io.Int.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=2**64 - 1,
        control_after_generate=True,
        tooltip="Another seed gives another caption.",
    )


class ELLALongCaption(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ELLALongCaption",
            display_name="ELLA Long Caption",
            category=CATEGORY,
            description="Has a language model write the long form of a short prompt, which ELLA's authors recommend: "
            "ELLA was trained on long descriptions. Prompts that are long already pass unchanged.",
            search_aliases=["caption upsampling", "prompt enhance", "prompt expansion", "LLM"],
            inputs=[
                io.String.Input("prompt", multiline=True, default="", tooltip="The short prompt."),
                io.DynamicCombo.Input(
                    "source",
                    options=[
                        io.DynamicCombo.Option(
                            REPLY,
                            [
                                io.String.Input(
                                    "reply",
                                    multiline=True,
                                    default="",
                                    tooltip="A language model's answer to the instruction, connected from any node "
                                    "that gives text or pasted from a chat. Empty: the prompt passes unchanged.",
                                )
                            ],
                        ),
                        io.DynamicCombo.Option(
                            SERVER,
                            [
                                io.Combo.Input(
                                    "server",
                                    options=servers.names(),
                                    tooltip="A server of this machine's own list, as in LLM Layout Planner: Ollama and "
                                    "others at their usual local addresses, and those of servers.json.",
                                ),
                                _seed(),
                            ],
                        ),
                        io.DynamicCombo.Option(
                            MODEL,
                            [io.Clip.Input("clip", tooltip=f"A text model that can write ({GENERATING})."), _seed()],
                        ),
                    ],
                    tooltip="reply text: the answer of any language model. language model server: Ollama and others, by "
                    "name. host text generation: a text model that ComfyUI itself loads.",
                ),
                io.Boolean.Input(
                    "short_only",
                    default=True,
                    tooltip="Leave prompts of 25 words and more, and empty ones, as they are.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="caption", tooltip="The long caption, for ELLAEncode."),
                io.String.Output(display_name="instruction", tooltip="What to ask a language model, for pasting."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, source=None, **_inputs):
        """A server whose entry has changed is asked again."""
        return servers.source_fingerprint(source)

    @classmethod
    async def execute(cls, prompt: str, source: dict | None = None, short_only: bool = True) -> io.NodeOutput:
        question = upsampling_request(prompt)
        if not prompt.strip() or (short_only and not needs_upsampling(prompt)):
            return io.NodeOutput(prompt, question)
        chosen = servers.known_source(source, (REPLY, SERVER, MODEL))
        if chosen["source"] == REPLY and not (chosen.get("reply") or "").strip():
            return io.NodeOutput(prompt, question)
        answer, faults = await _answered(chosen, question)
        told = text_view(cls, (*faults, *doubts(answer)))
        return io.NodeOutput(caption_from_reply(answer, prompt), question, ui=cast(Any, told))


async def _answered(source: dict, question: str) -> tuple[Answer, tuple[str, ...]]:
    """The language model's answer, and what is wrong in the file of servers."""
    seed = source.get("seed") or 0
    if source["source"] == MODEL:
        return answer_in(generate(source.get("clip"), question, seed, CAPTION_TOKENS)), ()
    if source["source"] == SERVER:
        server = servers.named(source.get("server") or "")
        answer = await in_thread(lambda stopped: caption_from_server(server, question, seed, CAPTION_TOKENS, stopped))
        return answer, servers.listed().faults
    return answer_in(within("the reply", source["reply"], MAX_REPLY)), ()


NODES = [ELLALongCaption]
