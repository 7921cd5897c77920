"""Check a folder of reference vectors: `python run.py python tests/golden/check.py FOLDER`.

Prints `file: passed/total` per file and a last line `passed P/T`; the exit status is 1 if a case that is not a known
quirk fails. Deviations from the reference's quirks are deliberate and listed with their reason.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ADAPTER_FILES = (
    "llm_adapter_cases.safetensors",
    "jina_v2_cases.safetensors",
    "text_cases.safetensors",
    "attention_rollout.safetensors",
    "gemma3_chat_ids.json",
    "full_shapes.json",
)


def load(name: str, path: Path):
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def check_lmd(folder: Path) -> list[tuple[str, int, int, list[str]]]:
    """(file, passed, total, messages) for every case file with a handler; messages of hard failures start with FAIL."""
    from safetensors import safe_open

    cases = load("golden_lmd_cases", HERE / "lmd_cases.py")
    plus = load("golden_lmd_plus_cases", HERE / "lmd_plus_cases.py")
    others = [load(f"golden_{name}", HERE / f"{name}.py") for name in ("plan_cases", "refine_cases")]
    handlers = {name: handler for module in (cases, plus, *others) for name, handler in module.HANDLERS.items()}
    deviations = {**cases.DEVIATIONS, **plus.DEVIATIONS}
    rows = []
    for path in sorted(folder.glob("*.json")):
        handler = handlers.get(path.stem)
        data = json.loads(path.read_text())
        if handler is None:
            rows.append((path.stem, 0, len(data["cases"]), [f"FAIL {path.stem}: no handler for this file"]))
            continue
        tensors: dict[str, dict] = {}
        if path.with_suffix(".safetensors").exists():
            with safe_open(path.with_suffix(".safetensors"), "pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a mapping)
                    case, _, name = key.partition("/")
                    tensors.setdefault(case, {})[name] = file.get_tensor(key)
        passed, messages = 0, []
        for case in data["cases"]:
            try:
                handler(case["input"], case["expected"], tensors.get(case["id"], {}))
                passed += 1
            except Exception as error:
                reason = deviations.get(path.stem) if case["quirk"] else None
                verdict = f"deviates ({reason})" if reason else f"FAIL {type(error).__name__}: {error}"
                messages.append(f"{verdict} [{case['id']}: {case['note']}]")
        rows.append((path.stem, passed, len(data["cases"]), messages))
    return rows


def main(folder: Path) -> int:
    load("ella_lmd_pack", ROOT / "tools" / "pack.py").register()
    ella = HERE / "ella_cases.py"
    if (folder / "reduced_state.safetensors").exists() and ella.exists():
        rows = load("golden_ella_cases", ella).check(folder)
    elif any((folder / name).exists() for name in ADAPTER_FILES):
        load("golden_ella_cases", ella).find_host()
        rows = load("golden_adapter_cases", HERE / "adapter_cases.py").check(folder)
    else:
        rows = check_lmd(folder)
    if not rows:
        print(f"no case files in {folder}")
        return 2
    for name, passed, total, messages in rows:
        print(f"{name}: {passed}/{total}")
        for message in messages:
            print(f"    {message}")
    print(f"passed {sum(r[1] for r in rows)}/{sum(r[2] for r in rows)}")
    return int(any(m.startswith("FAIL") for r in rows for m in r[3]))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
