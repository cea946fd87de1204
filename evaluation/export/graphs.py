"""A model as a graph that runs without this project: torch's exported program, ONNX, and ONNX in int8.

Shapes: B batch, L text tokens, H picture side, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from data_utils.console.screen import without_notices
from data_utils.prepare.columns import PRESENT, TOWER_INPUTS
from evaluation.predict.inference import Outputs
from evaluation.predict.loaded_run import LoadedRun
from modeling.choices import FUSIONS
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError, reason_of

# Called as `AnsweringModel`.
Answerer = Callable[..., Outputs]
OUTPUTS = ("logits", "probabilities")


class AnsweringModel(nn.Module):
    """From what a row is to what `evaluate.py` says of it: this is exported."""

    def __init__(self, model: SentimentClassifier) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        text_present: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_present: Tensor | None = None,
    ) -> Outputs:
        """Logits and calibrated probabilities (B, C), float32; only what the head reads is given.

        Args:
            input_ids, attention_mask: (B, L) int64, padded on the right.
            pixel_values: (B, 3, H, H) uint8; they are normalised in here.
            text_present, image_present: (B,) bool.
        """
        inputs = {
            **{"input_ids": input_ids, "attention_mask": attention_mask, "text_present": text_present},
            **{"pixel_values": pixel_values, "image_present": image_present},
        }
        logits = self.model(**{name: value for name, value in inputs.items() if value is not None}).logits.float()
        return {"logits": logits, "probabilities": self.model.probabilities(logits)}


def list_inputs(run: LoadedRun) -> list[str]:
    """The names of what the run's model reads."""
    return [name for kind in FUSIONS[run.config.fusion] for name in (*TOWER_INPUTS[kind], PRESENT[kind])]


def name_sizes(run: LoadedRun) -> dict[str, dict[int, Dim]]:
    """Of each input the dimensions that may be of any size: of texts from 1 to max_length tokens."""
    rows, tokens = Dim("batch", min=1), Dim("length", min=1, max=run.config.max_length)
    return {name: {0: rows} | ({1: tokens} if name in TOWER_INPUTS["text"] else {}) for name in list_inputs(run)}


def trace(run: LoadedRun, model: SentimentClassifier) -> ExportedProgram:
    """The model's operations for all of `name_sizes`; `InputError` where torch's exporter can't follow the encoders."""
    # Of no size that is another's too, by which the exporter would take the two for one.
    batch = run.make_inputs(3, max(2, run.config.max_length - 1))
    inputs, sizes = {name: batch[name] for name in list_inputs(run)}, name_sizes(run)
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(AnsweringModel(model), (), kwargs=inputs, dynamic_shapes=sizes)
    except Exception as error:  # any: another library's code under a tracer
        raise InputError(
            f"torch {torch.__version__} can't export the model of {run.folder.path} ({reason_of(error)}); train with "
            "other encoders, or use the run where this project is installed."
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # with the paths of this machine
    return program


def save_onnx(run: LoadedRun, program: ExportedProgram, path: Path) -> None:
    """Write an ONNX graph; weights beyond 1.5 GB, which its format can't hold, into a file beside it."""
    names, sizes = list_inputs(run), name_sizes(run)
    with _quiet():
        graph = torch.onnx.export(
            program, input_names=names, output_names=OUTPUTS, dynamic_shapes=sizes, dynamo=True, verbose=False
        )
    assert graph is not None  # as without `dynamo`
    for node in graph.model.graph.all_nodes():
        node.metadata_props.clear()  # of where in which program it comes from
    graph.save(path)


def quantize(path: Path, target: Path) -> None:
    """Write a graph whose matrix products are of 8-bit integers, scaled per row and call (dynamic quantisation)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(path, target, weight_type=QuantType.QInt8, per_channel=True)


def open_onnx(path: Path) -> Answerer:
    """What a file of `save_onnx` or `quantize` answers on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def answer(**inputs: Tensor) -> Outputs:
        found = session.run(OUTPUTS, {name: value.numpy() for name, value in inputs.items()})
        return dict(zip(OUTPUTS, map(torch.from_numpy, found), strict=True))

    return answer


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks on their own doing."""
    with without_notices(), warnings.catch_warnings(action="ignore"):
        yield
