"""Runs a script of this checkout as a module of the package: `python tools/launch.py tools/bench/table.py ARGS`.

So scripts import the pack and each other as `ella_lmd.…`, and none of them touches `sys.path`. A process that
`multiprocessing` spawns loads this file again, which registers the package there too.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# This folder holds a `server.py`, the checkout a `nodes/`: both would hide the host's modules of these names.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() not in (HERE, ROOT)]
_spec = importlib.util.spec_from_file_location("ella_lmd_pack", HERE / "pack.py")
_pack = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_pack)
_pack.register()


def main() -> int:
    script = Path(sys.argv[1]).resolve()
    name = ".".join((_pack.NAME, *script.relative_to(ROOT).with_suffix("").parts))
    sys.argv = sys.argv[1:]
    return importlib.import_module(name).main() or 0


if __name__ == "__main__":
    sys.exit(main())
