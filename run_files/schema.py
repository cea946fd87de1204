"""The types of what is read from a run folder, file by file; further keys are passed over.

What is described by a dataclass needs no entry here: `DataArguments`, `PictureSettings`, `TrialRecord`, `Manifest`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from data_utils.system.schema import Within

Name = Annotated[str, Within(0, 10_000)]
Count = Annotated[int, Within(0, 2**62)]
Seed = Annotated[int, Within(-(2**63), 2**64)]
Width = Annotated[int, Within(1, 65_536)]
Side = Annotated[int, Within(1, 4096)]
Layers = Annotated[list[Annotated[int, Within(-1000, 1000)]], Within(1, 1000)]
# A sweep writes a list where its trials differ.
Swept = float | list[float | None] | None


class TrainingSection(TypedDict, total=False):
    """Of config.yaml: the flags of training that are read again."""

    modality_dropout: Swept
    unimodal_loss_weight: Swept
    seed: Seed | list[Seed] | None


class EnvironmentSection(TypedDict, total=False):
    """Of config.yaml: what tells whether data and flags are those of the run."""

    data_fingerprint: Name | None
    split_sha256: Name | None
    tokens_sha256: Name | None
    rows_sha256: Name | None
    sweep_sha256: Name | None
    sources: dict[str, Name]
    python: Name
    versions: dict[str, Name]
    mixed_precision: Literal["no", "bf16", "fp16", "fp8"]


class FoldsSection(TypedDict):
    """Of config.yaml of a cross-validated run."""

    num_folds: Annotated[int, Within(2, 10_000)]
    seeds: Annotated[list[Seed], Within(1, 10_000)]
    sha256: NotRequired[Name]


class ConfigFile(TypedDict):
    """config.yaml; `DataArguments` checks the data section of a run that is evaluated."""

    model: dict[str, Any]
    data: dict[str, Any]
    training: TrainingSection
    environment: EnvironmentSection
    folds: NotRequired[FoldsSection]
    sweep: NotRequired[dict[str, Any]]
    baselines: NotRequired[dict[str, Any]]


class TowerSettings(TypedDict):
    """text_tower and vision_tower in model/config.json; `modeling.towers` builds it."""

    class_name: Name
    config: dict[str, Any]
    projection_dim: Width | None
    pooling: NotRequired[Literal["default", "mean"]]
    feature_layers: NotRequired[Layers | None]
    token_width: NotRequired[Width]


class Picture(TypedDict):
    """picture in model/config.json: `PictureSettings`, with bounds."""

    image_size: Side
    shortest_edge: Side
    resize_mode: Literal["shortest", "squash"]
    resample: Annotated[int, Within(0, 5)]


class ModelFile(TypedDict, total=False):
    """model/config.json: of `SentimentConfig`, what its own hints leave open."""

    fusion: Name
    text_tower: TowerSettings | None
    vision_tower: TowerSettings | None
    picture: Picture
    image_mean: Annotated[list[Annotated[float, Within(-1e6, 1e6)]], Within(1, 3)]
    image_std: Annotated[list[Annotated[float, Within(1e-6, 1e6)]], Within(1, 3)]
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None
    id2label: Annotated[dict[str, Name], Within(1, 10_000)]
    max_length: Annotated[int, Within(2, 32_768)]
    text_cleaning: Literal["report", "tweet", "none"]
    picture_pooling: Literal["mean", "attention"]
    fusion_dropout: Annotated[float, Within(0, 1)]
    temperature: Annotated[float, Within(1e-3, 1e3)]
    thresholds: list[Annotated[float, Within(0, 1)]] | None
    label_mean: float
    label_std: Annotated[float, Within(1e-300, 1e39)]


class TrainingFigures(TypedDict, total=False):
    """training in metrics.json."""

    seconds: float | None
    resumed_at_step: Count | None
    num_train_rows: Count | None
    label_counts: dict[str, Count] | None


class BestFigures(TypedDict, total=False):
    """best in metrics.json."""

    metric: Name | None


class MetricsFile(TypedDict, total=False):
    """metrics.json."""

    parameters: dict[str, Count] | None
    training: TrainingFigures | None
    best: BestFigures | None


class MemberTraining(TypedDict):
    """training in metrics.json of a training within a cross-validation."""

    seconds: float
    resumed_at_step: Count | None


class MemberMetricsFile(TypedDict):
    """metrics.json of a training within a cross-validation."""

    parameters: dict[str, Count]
    training: MemberTraining
    test: dict[str, Any]


# history.json: by its name what was logged at a step, the step among it.
HistoryFile = list[dict[str, float]]


class Condition(TypedDict, total=False):
    """One condition in robustness.json."""

    family: Name
    level: float
    accuracy: float
    accuracy_interval: Annotated[list[float], Within(2, 2)]
    macro_f1: float
    macro_f1_interval: Annotated[list[float], Within(2, 2)]


class RobustnessFile(TypedDict):
    """robustness.json."""

    conditions: Annotated[dict[str, Condition], Within(0, 1000)]
    remarks: list[Name]


class ChosenThreshold(TypedDict):
    """chosen in abstention.json."""

    threshold: Annotated[float, Within(0, 1)]


class AbstentionFile(TypedDict):
    """abstention.json."""

    wanted_accuracy: Annotated[float, Within(0, 1)]
    temperature: Annotated[float, Within(1e-6, 1e6)]
    chosen: ChosenThreshold


class StateFile(TypedDict):
    """trainer_state.json in a checkpoint: what a training goes on from."""

    global_step: Count
    max_steps: Count
    num_train_epochs: NotRequired[Count]
    epoch: float | None
    log_history: list[dict[str, Any]]
    best_metric: NotRequired[float | None]
    best_global_step: NotRequired[Count | None]
    best_model_checkpoint: NotRequired[Name | None]
    stateful_callbacks: NotRequired[dict[str, Any]]
