"""Four times the data takes four times the disk, and hardly more memory: nothing holds a whole data set."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from convoy.core import paths
from convoy.core.png import encode_png
from convoy.data import raw
from convoy.sources.items import Item

pytestmark = [pytest.mark.process, pytest.mark.torch]

DATA = {"image": "fashion", "text": "reviews"}  # the packaged data set of each kind
FEW, MANY = 4_000, 16_000
SIDE_PX = 64
IMAGE_BYTES = SIDE_PX * SIDE_PX * 3
WORDS = 400  # per text: about 2 kB, and 1.2 kB of token ids
ROOT = Path.cwd()
EPOCH = """
import sys
from pathlib import Path
import torch
from convoy.core import paths, tasks
from convoy.kinds.learning import candidates
name, = sys.argv[1:]
candidate = tasks.read().candidate(name)
contract = candidates.input_contract(candidate, None)
data = candidates.open_dataset(candidate.kind, paths.split_file(candidate.data, "train"), contract)
numbers = {"image": {"size": 64, "flip": True, "shift_px": 2}, "text": {"size": 64, "bucket": 50}}
params = candidates.batch_model(candidate.kind).model_validate(numbers[candidate.kind])
for inputs, labels in data.training_batches(params, 0, 0, torch.device("cpu")):
    pass
for inputs, labels in data.evaluation_batches(250, torch.device("cpu")):
    pass
"""

BASELINE = """
import sys
from pathlib import Path
from convoy.kinds.image import baselines as image
from convoy.kinds.image.items.prepared import read as read_images
split = read_images(Path(sys.argv[1]))
params = image.ImageBaseline(convolutions=(), hidden=(), dropout=0, learning_rate=0.001, batch_size=64, epochs=1)
image.predict(image.train(params, split, 0, "logreg"), split.contents)
"""


def peak_anonymous_mb(folder: Path, *command: str) -> float:
    """The most memory that a process had of its own; what is mapped from files the system takes back at need."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    # One arena: glibc gives each thread its own, and how much of them stays depends on chance.
    env = {**os.environ, "PYTHONPATH": path, "MALLOC_ARENA_MAX": "1"}
    process = subprocess.Popen([sys.executable, *command], cwd=folder, env=env, stdout=subprocess.DEVNULL)
    peaks = [0.0]

    def watch() -> None:
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            for line in status.splitlines():
                if line.startswith("RssAnon"):
                    peaks.append(int(line.split()[1]) / 1e3)
            time.sleep(0.005)  # a peak of the smaller one may be short

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert process.wait(timeout=300) == 0
    watcher.join()
    return max(peaks)


def images(count: int):
    generator = np.random.default_rng(0)
    for index in range(count):
        pixels = generator.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        yield Item(f"{index}", "ab"[index % 2], "", encode_png(pixels))


def texts(count: int):
    generator = np.random.default_rng(0)
    for index in range(count):
        words = generator.integers(0, 3_000, WORDS)
        yield Item(f"{index}", "ab"[index % 2], "", " ".join(f"w{word}" for word in words))


def lay(folder: Path, kind: str, count: int) -> Path:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["data"]["fashion"]["prepare"]["preprocessing"] |= {"size_px": SIDE_PX, "channels": 3}
    params["data"]["reviews"]["prepare"]["preprocessing"]["max_tokens"] = WORDS
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    items = images(count) if kind == "image" else texts(count)
    raw.write(folder / paths.raw(DATA[kind]), DATA[kind], kind, items, None)
    return folder


def measure(folder: Path, kind: str) -> dict[str, float]:
    """The most memory in MB of preparing, of feeding an epoch, and of a baseline; those of texts count all at once."""
    data = DATA[kind]
    commands = {"prepare": ("-m", "pipelines.prepare", data), "feed": ("-c", EPOCH, f"{data}-cnn")}
    if kind == "image":
        commands["learn"] = ("-c", BASELINE, str(paths.split_file(data, "train")))
    return {name: peak_anonymous_mb(folder, *command) for name, command in commands.items()}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["image", pytest.param("text", marks=pytest.mark.proof)])
def test_preparing_and_feeding_take_memory_that_hardly_grows_with_the_data(tmp_path: Path, kind: str) -> None:
    folders = [lay(tmp_path / str(count), kind, count) for count in (FEW, MANY)]
    few, many = (measure(folder, kind) for folder in folders)
    size_mb = [(folder / paths.split_file(DATA[kind], "train")).stat().st_size / 1e6 for folder in folders]
    grown_mb = size_mb[1] - size_mb[0]
    print(f"{kind}: data {size_mb} MB, {few} MB, {many} MB")
    assert grown_mb > 25
    allowed_mb = {"prepare": 0.35 * grown_mb, "feed": 0.25 * grown_mb, "learn": 0.25 * grown_mb}
    for _ in range(2):  # on a busy machine the short peaks of the smaller one are missed: look again
        if any(many[name] - few[name] >= allowed_mb[name] for name in few):
            again = measure(folders[0], kind)
            few = {name: max(few[name], again[name]) for name in few}
    assert {name: many[name] - few[name] for name in few if many[name] - few[name] >= allowed_mb[name]} == {}
