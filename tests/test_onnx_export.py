"""Each network as ONNX: one file, any batch and length, the same answers, nothing of the place where it was made."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export_networks import CARRIES_STATE, EXPLAINED, NETWORKS, calibration, network
from tiny_bundles import IMAGE_CARD, STREAM_CARD, TEXT_CARD, stream_tokenizer_json, tokenizer_json

from convoy.bundles.explanation import Explainer
from convoy.bundles.predictor import Model
from convoy.evaluation.parity import (
    ParityBroken,
    compare,
    compare_batches,
    compare_explanations,
    compare_pieces,
    compare_sizes,
    require_agreement,
    require_close,
)
from convoy.export.to_onnx import Contributions, Probabilities

pytestmark = [pytest.mark.torch, pytest.mark.process]
SCRIPT = Path(__file__).with_name("export_networks.py")


def export_to(folder: Path, *only: str) -> Path:
    """Run the script, copied to a folder of its own."""
    folder.mkdir(parents=True)
    script = folder / SCRIPT.name
    script.write_text(SCRIPT.read_text())
    command = [sys.executable, script, folder, *only]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_to(tmp_path_factory.mktemp("export") / "all")


@pytest.fixture(scope="module", params=NETWORKS, ids="-".join)
def exported(request: pytest.FixtureRequest, exports: Path) -> tuple[str, str, bytes]:
    kind, architecture = request.param
    return kind, architecture, (exports / f"{kind}-{architecture}" / "model.onnx").read_bytes()


@pytest.fixture(scope="module")
def explainer(exported: tuple[Any, Any, bytes], exports: Path) -> Explainer:
    kind, architecture, content = exported
    explanation = (exports / f"{kind}-{architecture}" / "explanation.onnx").read_bytes()
    return Explainer(model(kind, architecture, content), explanation)


def model(kind: str, architecture: str, content: bytes) -> Model:
    in_pieces = (kind, architecture) == CARRIES_STATE
    card = STREAM_CARD if in_pieces else {"image": IMAGE_CARD, "text": TEXT_CARD}[kind]
    tokenizer = stream_tokenizer_json() if in_pieces else tokenizer_json()
    return Model(card, {"model.onnx": content, "tokenizer.json": tokenizer})


def probabilities(kind: str, architecture: str, **changes: Any) -> Probabilities:
    return Probabilities(network(kind, architecture), calibration(kind)._replace(**changes)).eval()


def inputs(kind: str, count: int = 40) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    if kind == "image":
        return list(generator.integers(0, 256, (count, 28, 28, 1), dtype=np.uint8))
    return [generator.integers(1, 50, generator.integers(1, 60)).astype(np.int32) for _ in range(count)]


def test_torch_and_onnx_agree_on_every_size(exported: tuple[Any, Any, bytes]) -> None:
    kind, architecture, content = exported
    agreement = compare_sizes(probabilities(kind, architecture), model(kind, architecture, content), inputs(kind))
    assert agreement.n > 40
    assert require_agreement(agreement, 1e-5, "the grid") is agreement


def test_an_answer_does_not_depend_on_the_rest_of_the_batch(exported: tuple[Any, Any, bytes]) -> None:
    kind, architecture, content = exported
    agreement = compare_batches(model(kind, architecture, content), inputs(kind, 64))
    assert agreement.max_difference <= 1e-5


def test_batch_and_length_are_symbolic_in_the_saved_graph(exported: tuple[Any, Any, bytes]) -> None:
    kind, _, content = exported
    shape = onnx.load_from_string(content).graph.input[0].type.tensor_type.shape.dim
    symbolic = [bool(dimension.dim_param) for dimension in shape]
    assert symbolic == ([True, False, False, False] if kind == "image" else [True, True])


def test_no_dropout_is_left_in_the_graph(exported: tuple[Any, Any, bytes]) -> None:
    graph = onnx.load_from_string(exported[2]).graph
    assert not {node.op_type for node in graph.node} & {"Dropout", "RandomUniformLike", "Bernoulli"}


def test_nothing_in_the_file_tells_where_it_was_made(exported: tuple[Any, Any, bytes]) -> None:
    content = exported[2]
    for trace in (b".py", b"/src/", b"site-packages", str(Path.cwd()).encode(), b"pkg.torch"):
        assert trace not in content


def test_the_same_network_gives_the_same_bytes_in_another_folder(exports: Path, tmp_path: Path) -> None:
    """And in a process that exports nothing else."""
    other = export_to(tmp_path / "quite another" / "place", "text-lstm")
    for name in ("model.onnx", "explanation.onnx"):
        assert (other / "text-lstm" / name).read_bytes() == (exports / "text-lstm" / name).read_bytes()


def test_a_disagreement_is_named_with_its_place_and_size() -> None:
    ours = np.array([[0.6, 0.4], [0.1, 0.9]])
    with pytest.raises(ParityBroken, match=r"the validation split: .*0\.2 .*1 of 2 classes flip"):
        require_agreement(compare(ours, np.array([[0.4, 0.6], [0.1, 0.9]])), 1e-4, "the validation split")


def test_not_a_number_is_a_disagreement() -> None:
    with pytest.raises(ParityBroken):
        require_agreement(compare(np.array([[np.nan, 1.0]]), np.array([[0.0, 1.0]])), 1e-4, "anything")


@pytest.mark.parametrize("change", [{"temperature": 1.0}, {"offsets": None}], ids=str)
def test_the_calibration_is_in_the_graph(exported: tuple[Any, Any, bytes], change: dict[str, Any]) -> None:
    kind, architecture, content = exported
    other = probabilities(kind, architecture, **change)
    with pytest.raises(ParityBroken):
        require_agreement(compare_sizes(other, model(kind, architecture, content), inputs(kind)), 1e-4, "the grid")


def test_a_changed_weight_breaks_parity(exported: tuple[Any, Any, bytes]) -> None:
    kind, architecture, content = exported
    other = probabilities(kind, architecture)
    *_, last_bias = other.parameters()
    with torch.no_grad():
        last_bias += torch.linspace(0, 0.1, len(last_bias))
    with pytest.raises(ParityBroken):
        require_agreement(compare_sizes(other, model(kind, architecture, content), inputs(kind)), 1e-4, "the grid")


@pytest.mark.parametrize("exported", EXPLAINED, indirect=True, ids="-".join)
def test_explanations_sum_up_to_the_predictions_and_are_those_of_torch_on_every_size(
    exported: tuple[Any, Any, bytes], explainer: Explainer
) -> None:
    kind, architecture, _ = exported
    ours = Contributions(network(kind, architecture), calibration(kind)).eval()
    sums, difference = compare_explanations(ours, explainer, inputs(kind))
    assert require_agreement(sums, 1e-5, "the sums").n > 40
    assert require_close(difference, 1e-5) == difference


@pytest.mark.parametrize("exported", EXPLAINED, indirect=True, ids="-".join)
def test_an_explanation_of_another_temperature_breaks_parity(
    exported: tuple[Any, Any, bytes], explainer: Explainer
) -> None:
    kind, architecture, _ = exported
    warmer = Contributions(network(kind, architecture), calibration(kind)._replace(temperature=0.85)).eval()
    _, difference = compare_explanations(warmer, explainer, inputs(kind))
    with pytest.raises(ParityBroken, match="in the mean"):
        require_close(difference, 1e-4)


@pytest.mark.parametrize("exported", EXPLAINED, indirect=True, ids="-".join)
def test_a_sum_that_is_not_what_is_predicted_breaks_parity(
    exported: tuple[Any, Any, bytes], explainer: Explainer
) -> None:
    def without_bias(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        contributions, _ = explainer.run(batch)
        return contributions, contributions.sum(axis=(2, 3))

    kind, architecture, content = exported
    ours = Contributions(network(kind, architecture), calibration(kind)).eval()
    without: Any = SimpleNamespace(model=model(kind, architecture, content), run=without_bias)
    with pytest.raises(ParityBroken, match="the sums"):
        require_agreement(compare_explanations(ours, without, inputs(kind))[0], 1e-4, "the sums")


@pytest.mark.parametrize("exported", [CARRIES_STATE], indirect=True, ids="-".join)
def test_a_text_in_pieces_has_the_answers_of_the_whole(exported: tuple[Any, Any, bytes]) -> None:
    kind, architecture, content = exported
    texts = ["the good film isn't bad<br /><br />at all, " * count for count in (1, 3, 40)]
    agreement = compare_pieces(model(kind, architecture, content), texts)
    assert agreement.n > 300 and agreement.max_difference <= 1e-5 and not agreement.class_flips
