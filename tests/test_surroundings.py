"""Locale, time zone, hash seed, umask, place and the day make no difference to what is prepared."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from sources_of_users import lay, png

pytestmark = pytest.mark.process

ROOT = Path.cwd()
PLAIN = ("plain", {}, 0o022)
OTHERS = [
    ("plain", {"LC_ALL": "C", "PYTHONUTF8": "0"}, 0o022),
    ("plain", {"LC_ALL": "C.UTF-8", "TZ": "Pacific/Kiritimati"}, 0o022),
    ("plain", {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}, 0o077),
    ("with a space", {"PYTHONHASHSEED": "2"}, 0o022),
    ("ünï💥/深い", {"PYTHONHASHSEED": "3", "TZ": "America/St_Johns"}, 0o077),
]
TURKISH = "tr_TR.UTF-8"  # where the small form of I has no dot, and half of a whole is 0,5
A_LEAP_DAY = "2032-02-29 23:59:58"
STAGES = (("fetch", "fashion"), ("prepare", "fashion"), ("fetch", "reviews"), ("prepare", "reviews"))


def prepare(folder: Path, environment: dict[str, str], umask: int, prefix: tuple[str, ...] = ()) -> dict[str, str]:
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
    params["data"]["fashion"]["fetch"] |= {"source": "folder", "path": "pictures"}
    params["data"]["reviews"]["fetch"] |= {"source": "table", "path": "texts.csv"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    for stage, data in STAGES:
        subprocess.run(
            [*prefix, sys.executable, "-m", f"pipelines.{stage}", data],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, **environment},
            umask=umask,
            check=True,
            capture_output=True,
        )
    found = [file for top in ("data", "reports") for file in (folder / top).rglob("*") if file.is_file()]
    assert found and all(file.stat().st_mode & 0o777 == 0o644 for file in found), "others may read what is made"
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in found}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    name, environment, umask = PLAIN
    found = prepare(tmp_path_factory.mktemp("first") / name, environment, umask)
    assert {"data/prepared/fashion/train.arrow", "data/prepared/reviews/contract/tokenizer.json"} <= set(found)
    return found


@pytest.fixture
def turkish(tmp_path: Path) -> dict[str, str]:
    """The environment that turns the Turkish locale on: the system's, or one made here; skips where neither can be."""
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout if shutil.which("locale") else ""
    environment = {"LC_ALL": TURKISH}
    if "tr_TR.utf8" not in known.split():
        made = tmp_path / "locales"
        made.mkdir()
        command = ["localedef", "--inputfile", "tr_TR", "--charmap", "UTF-8", str(made / TURKISH)]
        if not shutil.which("localedef") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip(f"{TURKISH} is not installed, and `localedef` cannot make it")
        environment["LOCPATH"] = str(made)
    said = "import locale; locale.setlocale(locale.LC_ALL, ''); print(locale.str(0.5))"
    environ = {**os.environ, **environment}
    on = subprocess.run([sys.executable, "-c", said], env=environ, check=True, capture_output=True, text=True)
    assert on.stdout == "0,5\n", "it is on"
    return environment


@pytest.mark.parametrize("others", [OTHERS[::4], pytest.param(OTHERS[1:4], marks=pytest.mark.proof)])
def test_the_surroundings_make_no_difference(
    tmp_path: Path, expected: dict[str, str], others: list[tuple[str, dict[str, str], int]]
) -> None:
    for number, (name, environment, umask) in enumerate(others):
        assert prepare(tmp_path / str(number) / name, environment, umask) == expected, (name, environment)


def test_turkish_makes_no_difference(tmp_path: Path, expected: dict[str, str], turkish: dict[str, str]) -> None:
    assert prepare(tmp_path / "plain", turkish, 0o022) == expected


@pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed")
def test_the_day_makes_no_difference(tmp_path: Path, expected: dict[str, str]) -> None:
    environment = {"DONT_FAKE_MONOTONIC": "1"}
    assert prepare(tmp_path / "plain", environment, 0o022, ("faketime", A_LEAP_DAY)) == expected
