"""Bundle -> predictions, with onnxruntime alone; evaluation and serving use the same one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from convoy.bundles.bundle import Bundle, BundleInvalid, Card, read_bundle
from convoy.kinds.registry import module

BATCH = 32  # inputs of similar length that run together; larger batches gain nothing on a CPU
REPLAY_TOLERANCE = 1e-4  # other processors round differently; a wrong model is off by far more


class Prepared(Protocol):
    """One input as the model takes it, and what its sender should know of it."""

    array: NDArray[Any]
    warnings: tuple[str, ...]


class Preprocessor(Protocol):
    """The preprocessor of a kind, for one contract."""

    def prepare(self, raw: Any, **options: Any) -> Prepared:
        """One raw input -> what the model takes. Raises InputRejected."""

    def collate(self, arrays: list[NDArray[Any]]) -> NDArray[Any]:
        """Prepared arrays -> one batch."""


class Model:
    """The preprocessing and the ONNX session of one card; its examples are not checked."""

    def __init__(self, card: Card, files: dict[str, bytes], threads: int = 1) -> None:
        self.card = card
        self.preprocessor: Any = _open_preprocessor(card, files)  # a Preprocessor, with what its kind has besides
        self._session = open_session("model.onnx", files["model.onnx"], threads)
        _check_graph(self._session, card)
        inputs = self._session.get_inputs()
        self._input_names: list[str] = [node.name for node in inputs]
        # How many numbers a model that reads a text in pieces carries between them; 0 for every other model.
        self.state_size: int = inputs[1].shape[1] if len(inputs) > 1 else 0

    def prepare(self, raw: bytes | str, **options: Any) -> Prepared:
        """One raw input (image bytes, or a text) -> what the model takes. Raises InputRejected."""
        prepared: Prepared = self.preprocessor.prepare(raw, **options)
        return prepared

    def probabilities(self, arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Prepared arrays -> (inputs, labels) float32, in the order given, whatever else is in the batch."""
        if len(arrays) == 1:
            return self.run(self.preprocessor.collate(list(arrays)))
        order = sorted(range(len(arrays)), key=lambda index: len(arrays[index]))
        result = np.empty((len(arrays), len(self.card.labels)), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            batch = self.preprocessor.collate([arrays[row] for row in rows])
            result[rows] = self.run(batch)
        return result

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """One collated batch -> (batch, labels) float32."""
        result: NDArray[np.float32]
        if self.state_size:
            after_each_word, _ = self.step(batch, np.zeros((len(batch), self.state_size), np.float32))
            result = after_each_word[:, -1]  # padding does not change it after the last word
        else:
            (result,) = self._session.run(None, {self._input_names[0]: batch})
        return result

    def step(
        self, tokens: NDArray[Any], carried: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Token ids (streams, words) and the carried state -> probabilities after each word, and the state to carry on.

        (streams, words, labels) and (streams, state_size), float32; the state before the first word is zeros. Only for
        a model that carries a state. Nothing can follow padded token ids.
        """
        after_each_word = []
        longest = self.card.preprocessing.longest_run
        for start in range(0, tokens.shape[1], longest):
            part = tokens[:, start : start + longest]
            probabilities, carried = self._session.run(None, dict(zip(self._input_names, (part, carried), strict=True)))
            after_each_word.append(probabilities)
        return np.concatenate(after_each_word, axis=1), carried

    def replay(self, inputs: Sequence[str]) -> NDArray[np.float32]:
        """The probabilities of raw inputs as examples.json holds them: texts, or PNGs in base64."""
        from_example = module(self.card.kind, "items.raw").from_example
        return self.probabilities([self.prepare(from_example(item)).array for item in inputs])


class Predictor(Model):
    """The model of a checked bundle that has reproduced its own examples, which also warmed it up."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Load `folder`. Raises BundleInvalid for a bundle that is altered or does not reproduce its examples."""
        bundle = read_bundle(folder)
        super().__init__(bundle.card, bundle.files, threads)
        self.folder = folder
        self.digest: str = bundle.digest
        try:
            self._check_examples(bundle)
        except BundleInvalid:
            raise
        except Exception as error:  # malformed examples, or a graph that takes no input: each library raises its own
            cause = f"{type(error).__name__}: {error}"
            raise BundleInvalid(
                f"{folder}: examples.json cannot be replayed ({cause}); export the bundle again"
            ) from None

    def _check_examples(self, bundle: Bundle) -> None:
        """Reproduce the examples. Raises BundleInvalid."""
        folder = self.folder
        if not bundle.examples:
            raise BundleInvalid(f"{folder}: examples.json holds no example; export the bundle again")
        replayed = self.replay([example.input for example in bundle.examples])
        expected = np.array([example.probabilities for example in bundle.examples])
        difference = float(np.abs(replayed - expected).max())
        if not difference <= REPLAY_TOLERANCE:  # also true for NaN
            raise BundleInvalid(
                f"{folder} does not reproduce its own examples: "
                f"probabilities differ by {difference:.2g}, at most {REPLAY_TOLERANCE} is allowed"
            )


def open_session(name: str, onnx_bytes: bytes, threads: int) -> ort.InferenceSession:
    """A graph, ready to run on `threads`. Raises BundleInvalid, which names the file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads would take the core from the server between two requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # From bytes: the digest covers all that runs, and no file outside the bundle can be loaded.
        return ort.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises errors of its own, without a common base
        raise BundleInvalid(f"{name} cannot be loaded: {error}") from None


def _open_preprocessor(card: Card, files: dict[str, bytes]) -> Any:
    preprocessing = module(card.kind, "items.preprocessing")
    for name in preprocessing.FILES:
        if name not in files:
            raise BundleInvalid(f"{name} is missing from the bundle; export it again")
    try:
        return preprocessing.open_preprocessor(card.preprocessing, files)
    except Exception as error:  # tokenizers raises Exception itself
        names = ", ".join(preprocessing.FILES)
        raise BundleInvalid(f"{names} cannot be read: {error}; export the bundle again") from None


def _check_graph(session: ort.InferenceSession, card: Card) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    carries_state = card.preprocessing.carries_state
    count = 2 if carries_state else 1  # the state is the second input and the second output
    if len(inputs) != count or len(outputs) != count or outputs[0].shape[-1] != len(card.labels):
        raise BundleInvalid(
            f"model.onnx has outputs {[(output.name, output.shape) for output in outputs]}, "
            f"one of {len(card.labels)} probabilities is expected" + (" and one of the state" if carries_state else "")
        )
    if carries_state and not isinstance(inputs[1].shape[1], int):
        raise BundleInvalid(f"model.onnx has a state of shape {inputs[1].shape}, its size is expected; export it again")
