"""ELLA + LMD: a ComfyUI node pack. Importing this module loads nothing of the host; `comfy_entrypoint` does."""

import logging

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called by ComfyUI once at start-up; returns the extension that lists the nodes."""
    try:
        from .nodes import EllaLmdExtension
    except Exception:
        logging.getLogger(__name__).exception("ELLA + LMD could not be loaded")
        raise
    return EllaLmdExtension()
