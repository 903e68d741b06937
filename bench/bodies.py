"""What the servers of a benchmark are given: the bundles built last, and the same inputs in the form each takes."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.samples import IMAGES, STREAM, TEXTS, some_images, some_texts
from convoy.bundles.bundle import RELEASE, Release, digest_of
from convoy.bundles.predictor import Predictor
from convoy.core import paths
from convoy.core.png import encode_png
from convoy.kinds.text.items.preprocessing import TextPreprocessing

BOUNDARY = "a-boundary-of-a-form"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
JSON = "application/json"


@dataclass(frozen=True)
class Bodies:
    """The same images and texts, in the form that each contestant takes."""

    images: list[Path]
    forms: list[Path]
    tensors: list[Path]
    our_texts: list[Path]
    texts: list[Path]


def write_bodies(folder: Path, count: int) -> Bodies:
    """Validation images as PNG, and validation reviews cut to 20 to 400 words, drawn evenly."""
    found = Bodies([], [], [], [], [])

    def put(into: list[Path], name: str, content: bytes) -> None:
        path = folder / f"{name}-{len(into)}"
        path.write_bytes(content)
        into.append(path)

    for pixels in some_images(paths.split_file(IMAGES, "validation"), count).contents:
        png = encode_png(pixels)
        put(found.images, "png", png)
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="image.png"\r\n'
        head += "Content-Type: image/png\r\n\r\n"
        put(found.forms, "form", head.encode() + png + f"\r\n--{BOUNDARY}--\r\n".encode())
        put(found.tensors, "tensor", json.dumps({"inputs": pixels.reshape(1, 28, 28, 1).tolist()}).encode())
    reviews = some_texts(paths.split_file(TEXTS, "validation"), count).contents
    lengths = np.random.default_rng(0).permutation(np.linspace(20, 400, len(reviews)).astype(int))
    for review, words in zip(reviews, lengths, strict=True):
        text = " ".join(review.split()[:words])
        put(found.our_texts, "texts", json.dumps({"texts": [text]}).encode())
        put(found.texts, "text", json.dumps({"text": text}).encode())
    return found


def deploy(folder: Path, image: Path | None = None) -> None:
    """What the pipeline built last, as `publish` would deploy it; or another bundle for images."""
    for task in (IMAGES, TEXTS, STREAM):
        bundle = image if image is not None and task == IMAGES else paths.bundle(task).absolute()
        digest = digest_of(bundle)
        (folder / task / digest).mkdir(parents=True)
        for path in bundle.iterdir():
            (folder / task / digest / path.name).symlink_to(path)
        release = Release(name=f"convoy-{task}", version="1", run_id="bench", digest=digest, promoted_at="")
        (folder / task / digest / RELEASE).write_text(release.model_dump_json())
        (folder / task / "current").symlink_to(digest)


def of_peers() -> dict[str, str]:
    """What the peers need to know of the bundles, as their environment."""
    found: dict[str, str] = {}
    for name, task in (("IMAGE", IMAGES), ("TEXT", TEXTS)):
        folder = paths.bundle(task).absolute()
        card = Predictor(folder).card
        found |= {f"{name}_ONNX": str(folder / "model.onnx"), f"{name}_LABELS": ",".join(card.labels)}
        if isinstance(card.preprocessing, TextPreprocessing):
            found["TOKENIZER"] = str(folder / "tokenizer.json")
            found["MAX_TOKENS"] = str(card.preprocessing.max_tokens)
            found["HEAD_TOKENS"] = str(card.preprocessing.head_tokens)
    return found
