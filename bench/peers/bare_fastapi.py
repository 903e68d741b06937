"""What one writes by hand: FastAPI and onnxruntime on uvicorn, no limits, no checks, one request after the other."""

import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI, Request
from PIL import Image
from pydantic import BaseModel
from tokenizers import Tokenizer

LABELS = {task: os.environ[f"{task.upper()}_LABELS"].split(",") for task in ("image", "text")}
MAX_TOKENS, HEAD_TOKENS = int(os.environ["MAX_TOKENS"]), int(os.environ["HEAD_TOKENS"])


def load(path: str) -> ort.InferenceSession:
    """A session with what is known to be best beside a server: one thread that does not spin."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


app = FastAPI()
sessions = {"image": load(os.environ["IMAGE_ONNX"]), "text": load(os.environ["TEXT_ONNX"])}
names = {task: session.get_inputs()[0].name for task, session in sessions.items()}
tokenizer = Tokenizer.from_file(os.environ["TOKENIZER"])


class Text(BaseModel):
    """One text to classify."""

    text: str


@app.post("/image")
async def image(request: Request) -> dict[str, Any]:
    """The raw body is an image."""
    return predict_image(await request.body())


@app.post("/text")
async def text(text: Text) -> dict[str, Any]:
    """JSON with one text."""
    return predict_text(text.text)


def predict_image(encoded: bytes) -> dict[str, Any]:
    """Decode, resize, run."""
    pixels = np.asarray(Image.open(io.BytesIO(encoded)).convert("L").resize((28, 28)), dtype=np.uint8)
    return answer("image", pixels[None, :, :, None])


def predict_text(text: str) -> dict[str, Any]:
    """Tokenise, keep head and tail, run."""
    ids = tokenizer.encode(text).ids
    if len(ids) > MAX_TOKENS:
        ids = ids[:HEAD_TOKENS] + ids[HEAD_TOKENS - MAX_TOKENS :]
    return answer("text", np.asarray([ids], dtype=np.int64))


def answer(task: str, batch: Any) -> dict[str, Any]:
    """The best label and all probabilities."""
    (row,) = sessions[task].run(None, {names[task]: batch})[0]
    return {
        "label": LABELS[task][int(row.argmax())],
        "probabilities": dict(zip(LABELS[task], row.tolist(), strict=True)),
    }


def bare_ms(path: Path, calls: int) -> float:
    """Median time of one image without any server."""
    encoded = path.read_bytes()
    took_ms = []
    for _ in range(calls):
        began_s = time.perf_counter()
        predict_image(encoded)
        took_ms.append((time.perf_counter() - began_s) * 1000)
    return float(np.median(took_ms))


if __name__ == "__main__":
    print(bare_ms(Path(sys.argv[1]), int(sys.argv[2])))
