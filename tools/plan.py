"""The offline planner on the command line.

    plan.py "PROMPT" [--width N] [--height N]   one layout as JSON
    plan.py --stdin [--width N] [--height N]    a prompt a line in, a JSON object a line out

A prompt that can't be planned gives {"prompt": ..., "error": ...}; with --stdin the work goes on with the next line.
Exit status: 0 when every prompt was planned, 1 when one was not, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import sys


def planned(prompt: str, width: int, height: int) -> dict:
    """The wire form of a layout, with the planner's notes when it has any; or the error."""
    from ella_lmd.lmd.planner.offline import plan

    try:
        layout = plan(prompt, width, height)
    except Exception as error:  # a long batch must not die on one line
        return {"prompt": prompt, "error": str(error) or type(error).__name__}
    return layout.to_json() | ({"notes": list(layout.notes)} if layout.notes else {})


def main() -> int:
    try:
        return run(sys.argv[1:])
    except BrokenPipeError:
        return 1


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt", nargs="?", help="what the image should show")
    parser.add_argument("--stdin", action="store_true", help="read one prompt a line")
    parser.add_argument("--width", type=int, default=512, help="canvas width in pixels, a multiple of 8")
    parser.add_argument("--height", type=int, default=512, help="canvas height in pixels, a multiple of 8")
    args = parser.parse_args(argv)
    if args.stdin == (args.prompt is not None):
        parser.error("give either a prompt or --stdin")
    if not args.stdin:
        result = planned(args.prompt, args.width, args.height)
        print(json.dumps(result, ensure_ascii=False))
        return int("error" in result)
    failed = False
    for line in sys.stdin.buffer:
        prompt = line.decode("utf-8", "replace").rstrip("\r\n")
        result = planned(prompt, args.width, args.height)
        failed |= "error" in result
        print(json.dumps(result), flush=True)
    return int(failed)
