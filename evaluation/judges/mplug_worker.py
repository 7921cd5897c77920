"""DPG-Bench's own judge, mPLUG-large, behind the line protocol of process.py; it needs ModelScope and nothing of ours.

    python -m venv mplug && mplug/bin/pip install modelscope torch transformers ...
    --judge "process:mplug/bin/python evaluation/judges/mplug_worker.py"

An optional argument is the model's folder or ModelScope name.
"""

import json
import sys

MODEL = "damo/mplug_visual-question-answering_coco_large_en"


def say(record: dict) -> None:
    """Writes one record as a line of JSON to the parent process."""
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Answers the questions that come in on stdin, one per line, until it is closed."""
    from modelscope.pipelines import pipeline
    from modelscope.utils.constant import Tasks

    ask = pipeline(Tasks.visual_question_answering, model=sys.argv[1] if len(sys.argv) > 1 else MODEL)
    say({"ready": True, "name": "mPLUG-large", "kinds": ["ask"]})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            found = ask({"image": asked["image"], "question": asked["about"]["question"]})
            say({"id": asked["id"], "answer": found["text"]})
        except Exception as error:
            say({"id": asked["id"], "error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
