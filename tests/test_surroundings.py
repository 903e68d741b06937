"""Locale, time zone, hash seed, umask, place and the day make no difference to what is prepared."""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from sources_of_users import lay, png

pytestmark = pytest.mark.slow

ROOT = Path.cwd()
PLAIN = ("plain", {}, 0o022)
OTHERS = [
    ("plain", {"LC_ALL": "C", "PYTHONUTF8": "0"}, 0o022),
    ("plain", {"LC_ALL": "C.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "Pacific/Kiritimati"}, 0o022),
    ("plain", {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}, 0o077),
    ("with a space", {"PYTHONHASHSEED": "2"}, 0o022),
    ("ünï💥/深い", {"TZ": "America/St_Johns"}, 0o077),
]
STAGES = ("fetch_images", "prepare_images", "fetch_text", "prepare_text")


def prepare(folder: Path, environment: dict[str, str], umask: int) -> dict[str, str]:
    """Run the stages in a folder that holds its own data; digests of all that they wrote."""
    lay(
        folder / "pictures",
        {f"{label}/{n}é.png": png(n + 100 * len(label)) for label in ("a", "bé") for n in range(40)},
    )
    draw = random.Random(0)
    words = ["schön", "sehr", "gut", "the", "film", "深い", "nö", "lang", "kurz", "a", "b", "c"]
    said = [" ".join(draw.choices(words, k=30)) for _ in range(200)]
    lines = "".join(f'"{text}, wirklich",{"yes" if n % 2 else "nö"}\n' for n, text in enumerate(said))
    lay(folder, {"texts.csv": f"text,label\n{lines}".encode()})
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["fetch_images"] |= {"source": "folder", "path": "pictures"}
    params["fetch_text"] |= {"source": "table", "path": "texts.csv"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    for stage in STAGES:
        subprocess.run(
            [sys.executable, "-m", f"pipelines.{stage}"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, **environment},
            umask=umask,
            check=True,
            capture_output=True,
        )
    found = [file for top in ("data", "reports") for file in (folder / top).rglob("*") if file.is_file()]
    assert found and all(file.stat().st_mode & 0o777 == 0o644 for file in found), "others may read what is made"
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in found}


def test_the_surroundings_make_no_difference(tmp_path: Path) -> None:
    name, environment, umask = PLAIN
    expected = prepare(tmp_path / "first" / name, environment, umask)
    assert {"data/prepared/image/train.arrow", "data/prepared/text/contract/tokenizer.json"} <= set(expected)
    for number, (name, environment, umask) in enumerate(OTHERS):
        assert prepare(tmp_path / str(number) / name, environment, umask) == expected, (name, environment)
