"""The planner on the command line: one JSON object a line, and a bad line ends nothing."""

import json
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).parents[2] / "tools"


def run(*args, text=b""):
    done = subprocess.run(
        [sys.executable, str(TOOLS / "launch.py"), str(TOOLS / "plan.py"), *args],
        input=text,
        capture_output=True,
        timeout=120,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_a_prompt_a_line_in_and_a_json_object_a_line_out():
    lines = b"two cats on a table, no dogs\r\n\n\xff\xfe \xf0\x9f\x90\xb1 a cat\na red ball\n"
    code, out, _ = run("--stdin", "--width", "768", text=lines)
    replies = [json.loads(line) for line in out.splitlines()]
    assert len(replies) == 4 and code == 1
    first = replies[0]
    assert first["prompt"] == "two cats on a table, no dogs" and first["canvas"] == [768, 512]
    assert [o["phrase"] for o in first["objects"]] == ["a cat", "a cat", "a table"]
    assert all(0 <= v <= 1 for o in first["objects"] for v in o["box"])
    assert (first["background"], first["negative"]) == ("A realistic scene", "dogs")
    assert replies[1]["prompt"] == "" and "the prompt is empty" in replies[1]["error"]
    assert replies[3]["objects"][0]["phrase"] == "a red ball"


def test_one_prompt_and_wrong_arguments():
    code, out, _ = run("a cat")
    assert code == 0 and json.loads(out)["objects"][0]["phrase"] == "a cat"
    assert run("a cat", "--width", "500")[0] == 1
    assert run()[0] == 2 and run("a cat", "--stdin")[0] == 2
