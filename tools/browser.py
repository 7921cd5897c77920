"""What the browser tests need beside the environment: Debian's Chromium and playwright-core from npm.

`python tools/browser.py` installs what is missing and can be installed; `found()` says what is there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ.get("ELLA_LMD_HOME") or Path.home() / ".cache" / "ella-lmd") / "browser"
PLAYWRIGHT = "1.65.1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> Path | None:
    """The browser: $ELLA_LMD_BROWSER, or the first of the usual names."""
    named = os.environ.get("ELLA_LMD_BROWSER")
    paths = [named] if named else [shutil.which(name) for name in BROWSERS]
    return next((Path(p) for p in paths if p and Path(p).exists()), None)


def found() -> tuple[Path, Path] | str:
    """(folder of playwright-core, browser), or a sentence that says what is missing and how it is installed."""
    missing = []
    if shutil.which("node") is None:
        missing.append("Node.js 20 or newer (apt-get install nodejs npm)")
    elif not _installed():
        missing.append(f"playwright-core {PLAYWRIGHT} (npm install --prefix {HOME} playwright-core@{PLAYWRIGHT})")
    if chromium() is None:
        missing.append("Chromium (apt-get install chromium; or name another one in ELLA_LMD_BROWSER)")
    return f"the browser tests need {' and '.join(missing)}" if missing else (HOME, chromium())


def _installed() -> bool:
    package = HOME / "node_modules" / "playwright-core" / "package.json"
    return package.exists() and f'"version": "{PLAYWRIGHT}"' in package.read_text()


def install() -> None:
    """Installs what is missing, as far as this machine lets it; what fails is told by `found` afterwards."""
    debian = hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get")
    wanted = [] if chromium() else ["chromium"]
    wanted += [] if shutil.which("node") and shutil.which("npm") else ["nodejs", "npm"]
    if wanted and debian:
        _tell(f"installing {' '.join(wanted)}")
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        _call(["apt-get", "update", "-qq"], quiet)
        _call(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted], quiet)
    npm = shutil.which("npm")
    if npm and not _installed():
        _tell(f"installing playwright-core {PLAYWRIGHT} into {HOME}")
        HOME.mkdir(parents=True, exist_ok=True)
        _call([npm, "install", "--no-audit", "--no-fund", "--prefix", str(HOME), f"playwright-core@{PLAYWRIGHT}"])


def _tell(text: str) -> None:
    print(f"[ella-lmd] {text}", file=sys.stderr, flush=True)


def _call(command: list[str], env: dict | None = None) -> None:
    code = subprocess.call(command, stdout=subprocess.DEVNULL, env=env)
    if code:
        _tell(f"{command[0]} ended with status {code}")


def main() -> None:
    install()
    state = found()
    if isinstance(state, str):
        _tell(state)
