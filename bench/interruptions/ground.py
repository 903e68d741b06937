"""A small workspace with everything built, in which a stage can be put back to where it had never run."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from convoy.lineage import workspace

TINY = Path(__file__).with_name("tiny.yaml")
FAULTS = Path(__file__).with_name("faults")
BUILD_S = 900
MADE = ("data", "candidates", "winner", "bundles", "reports")
TIMED = "curves.csv"  # holds the seconds that each epoch took


class Lost(RuntimeError):
    """A run of DVC failed that nothing had disturbed."""


@dataclass
class Ground:
    """The workspace, and what an undisturbed run gave there."""

    folder: Path
    lock: dict[str, Any] = field(default_factory=dict)
    expected: dict[str, str] = field(default_factory=dict)

    def lay(self) -> None:
        """Lay and build, with nothing of the run kept but its results."""
        workspace.create(self.folder, TINY)
        done = self.dvc()
        if done.returncode:
            raise Lost(f"dvc repro failed in {self.folder}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
        self.take()

    def take(self) -> None:
        """Take what lies in the workspace for what an undisturbed run gave."""
        self.lock = yaml.safe_load((self.folder / "dvc.lock").read_text())
        self.expected = {path: content for stage in self.stages for path, content in self.outs(stage).items()}

    def keep_times(self) -> None:
        """Let the record say what it says now, of a settled workspace: a stage that ran anew took another time."""
        self.lock = yaml.safe_load((self.folder / "dvc.lock").read_text())

    @property
    def stages(self) -> list[str]:
        """The names of all stages, in the order in which they ran."""
        return list(self.lock["stages"])

    def environment(self, **more: str) -> dict[str, str]:
        """The workspace's; `more` may arm a fault."""
        kept = workspace.environment(self.folder) | {"CONVOY_FOLLOW": "0", "OMP_NUM_THREADS": "1"}
        path = os.pathsep.join([str(FAULTS), kept["PYTHONPATH"]]) if more else kept["PYTHONPATH"]
        return {**kept, **more, "PYTHONPATH": path}

    def start(self, *words: str, **faults: str) -> "subprocess.Popen[str]":
        """`python -m` these words, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=self.folder,
            env=self.environment(**faults),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def dvc(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """A plain `dvc repro` to its end."""
        command = [sys.executable, "-m", "dvc", "repro", *words]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=BUILD_S
        )

    def outs(self, stage: str) -> dict[str, str]:
        """Files that a stage made -> their sha256, read anew; all but what holds times."""
        found = {}
        for out in self.lock["stages"][stage]["outs"]:
            path = self.folder / out["path"]
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file() and file.name != TIMED:
                    found[str(file.relative_to(self.folder))] = hashlib.sha256(file.read_bytes()).hexdigest()
        return found

    def same(self, stage: str) -> bool:
        """Whether files and record of a stage are those of the undisturbed run."""
        known = yaml.safe_load((self.folder / "dvc.lock").read_text())["stages"].get(stage, {}).get("outs", [])
        recorded, expected = (
            {out["path"]: out["md5"] for out in outs if not out["path"].endswith(TIMED)}
            for outs in (known, self.lock["stages"][stage]["outs"])
        )
        made = {path for out in recorded for path in self.expected if path == out or path.startswith(f"{out}/")}
        return recorded == expected and self.outs(stage) == {path: self.expected[path] for path in made}

    def leftovers(self) -> list[str]:
        """Temporary files of convoy.core.atomic that nobody has removed."""
        files = (file for name in MADE for file in (self.folder / name).rglob(".*"))
        return [str(file) for file in files if re.fullmatch(r"\..+\.[a-z0-9_]{8}", file.name)]

    def forget(self, stage: str) -> None:
        """As before the stage's first run: no outs, nothing in the cache, no record of it; all before it is there."""
        rest = {name: entry for name, entry in self.lock["stages"].items() if name != stage}
        (self.folder / "dvc.lock").write_text(yaml.safe_dump({**self.lock, "stages": rest}, sort_keys=False))
        for out in self.lock["stages"][stage]["outs"]:
            path, cached = self.folder / out["path"], self.cached(out["md5"])
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            if cached.suffix == ".dir" and cached.exists():
                for member in json.loads(cached.read_text()):
                    self.cached(member["md5"]).unlink(missing_ok=True)
            cached.unlink(missing_ok=True)
        for folder in (".dvc/cache/runs", ".run"):
            shutil.rmtree(self.folder / folder, ignore_errors=True)

    def restore(self, stage: str) -> None:
        """Let the stage run to its end, so that the workspace is whole again."""
        if self.dvc("-s", stage).returncode or not self.same(stage):
            raise Lost(f"{stage} does not give what it gave undisturbed")

    def cached(self, md5: str) -> Path:
        """DVC's cache object of this hash."""
        return self.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
