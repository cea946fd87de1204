"""The transformers pipeline over a saved model, and what a model's folder needs to stand alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Pipeline, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save

from .choices import DEFAULT_THRESHOLD
from .errors import InputError
from .processor import SentimentProcessor, to_rows

TASK = "text-image-classification"


class TextImagePipeline(Pipeline):
    """Classifies pairs of text and picture, either of which may be missing, with the model's own processor.

        pipe = pipeline(model=FOLDER, trust_remote_code=True)
        pipe(text="a good day", image="a.jpg")
        pipe([{"text": "a good day"}, {"image": ["a.jpg", "b.jpg"]}], batch_size=32)

    The answer of a row is a list of {label, score}, the best first: of all classes; of several labels those whose
    probability reaches the class's threshold. Of a regression it is the number.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_video_processor = False

    def __call__(self, inputs: Any = None, *, text: Any = None, image: Any = None, **options: Any) -> Any:
        """The answer of one row, or a list of answers.

        Args:
            inputs: a row {text, image}, a list of them, or a data set or generator of them, which is answered lazily.
            text, image: instead of `inputs`, see `SentimentProcessor`.
            options: top_k, so many of the classes, whatever the thresholds are; batch_size, rows per forward.

        Raises:
            InputError: what was given is no row, or a picture can't be read.
        """
        if inputs is not None and (text is not None or image is not None):
            raise InputError("Got rows, and text or image beside them; give one of the two.")
        rows = to_rows(text, image) if inputs is None else inputs
        return [] if rows == [] else super().__call__(rows, **options)

    def _sanitize_parameters(self, top_k: int | None = None) -> tuple[dict[str, Any], ...]:
        return {}, {}, {} if top_k is None else {"top_k": top_k}

    def preprocess(self, row: Any) -> dict[str, Any]:
        """Tokens and pixels of one row."""
        if not isinstance(row, Mapping):
            raise InputError(f"Got a {type(row).__name__} as a row; give text=... and image=..., or a dict of them.")
        return {"rows": self.processor.prepare(row)}

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        rows = inputs["rows"]  # one, or the list that transformers made of a batch
        batch = self.processor.collate(rows if isinstance(rows, list) else [rows]).to(self.device)
        return {"probabilities": self.model.probabilities(self.model(**batch).logits)}

    def postprocess(self, outputs: dict[str, Tensor], top_k: int | None = None) -> list[dict[str, Any]] | float:
        """The answer of one row."""
        config, (values,) = self.model.config, outputs["probabilities"].tolist()
        if config.task == "regression":
            return values[0]
        order = sorted(range(len(values)), key=lambda number: -values[number])
        if top_k is None and config.task == "multi_label":
            thresholds = config.thresholds or [DEFAULT_THRESHOLD] * len(values)
            order = [number for number in order if values[number] >= thresholds[number]]
        return [{"label": config.id2label[number], "score": values[number]} for number in order[:top_k]]


def save_alone(folder: str | Path, model_class: type[PreTrainedModel], processor: SentimentProcessor) -> None:
    """Write beside a model's weights and config.json all that it takes to answer on a machine without this project.

    That is the tokenizer, the processor's settings, the code, and in the .json files where transformers finds its
    classes. Nothing in them says where the folder lies or what its towers were loaded from.
    """
    config_class: Any = model_class.config_class
    config = config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    config.auto_map = {"AutoConfig": _place(config_class), "AutoModel": _place(model_class)}
    config.custom_pipelines = {TASK: {"impl": _place(TextImagePipeline), "pt": ["AutoModel"]}}
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    for each in (model_class, TextImagePipeline):
        custom_object_save(each, folder)


def _place(each: type) -> str:
    return f"{each.__module__.rpartition('.')[2]}.{each.__name__}"
