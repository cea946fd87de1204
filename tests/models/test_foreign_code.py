"""Program code that a model or run folder brings along: never run, nor asked about, without --trust_remote_code."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from evaluating import save_run
from tiny import LABELS, plan_of, save_clip

from modeling.errors import InputError
from training.build.build import build_model
from training.flags.model import ModelArguments

pytestmark = pytest.mark.usefixtures("fresh_state")

# What libraries look up under these names; each class is of transformers' own, so that trusted code works.
CODE = """
from pathlib import Path
Path({marker!r}).write_text("foreign code ran")
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast
class ForeignConfig(CLIPConfig):
    model_type = "foreign"
class ForeignModel(CLIPModel):
    config_class = ForeignConfig
class ForeignTokenizer(PreTrainedTokenizerFast):
    pass
class ForeignProcessor(CLIPImageProcessorPil):
    pass
"""
MAPS = {
    "config.json": {"AutoConfig": "code.ForeignConfig", "AutoModel": "code.ForeignModel"},
    "tokenizer_config.json": {"AutoTokenizer": ["code.ForeignTokenizer", "code.ForeignTokenizer"]},
    "preprocessor_config.json": {"AutoImageProcessor": "code.ForeignProcessor"},
}


@pytest.fixture(autouse=True)
def always_yes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """`yes |`: whoever asks is answered, but nobody may; imported code goes into the test's folder."""
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda prompt="": asked.append(prompt) or "yes")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    yield
    assert not asked


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """The folder of a tiny CLIP."""
    save_clip(tmp_path / "clip")
    return tmp_path / "clip"


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def plant(folder: Path, *names: str) -> Path:
    """Put code into a folder, and point to it from its files; the marker is there once the code has run."""
    marker = folder.parent / "marker"
    (folder / "code.py").write_text(CODE.format(marker=str(marker)))
    for name in names:
        change(folder / name, auto_map=MAPS[name])
    return marker


def build(folder: Path, **options: object) -> None:
    arguments = ModelArguments(model="clip", clip_name=str(folder), **options)
    plan = plan_of(arguments, max_length=16)
    build_model(plan, arguments, tokenizer=plan.tokenizer, labels=LABELS, text_cleaning="report")


@pytest.mark.parametrize(
    ("names", "file", "changes", "is_refused"),
    [
        (MAPS, "config.json", {}, False),  # transformers has all of its classes
        (MAPS, "config.json", {"model_type": "foreign"}, True),
        # For a CLIP transformers has a tokenizer of its own.
        (["tokenizer_config.json"], "tokenizer_config.json", {"tokenizer_class": "ForeignTokenizer"}, False),
        (["preprocessor_config.json"], "preprocessor_config.json", {"image_processor_type": "ForeignProcessor"}, True),
    ],
)
def test_code_does_not_run_and_what_it_alone_can_read_is_refused(
    clip: Path, names: list[str], file: str, changes: dict[str, str], is_refused: bool
) -> None:
    marker = plant(clip, *names)
    change(clip / file, **changes)
    refused = pytest.raises(InputError, match=r"code of its own.*--trust_remote_code") if is_refused else nullcontext()
    with refused as error:
        build(clip)
    assert error is None or "\n" not in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("file", "key", "name"),
    [
        ("tokenizer_config.json", "tokenizer_class", "AutoProcessorFastFast"),
        ("tokenizer_config.json", "tokenizer_class", "RagTokenizer"),
        ("config.json", "tokenizer_class", "AutoImageProcessor"),
        ("preprocessor_config.json", "image_processor_type", "AutoModelFast"),
        ("preprocessor_config.json", "feature_extractor_type", "AutoFeatureExtractor"),
        ("config.json", "image_processor_type", "AutoProcessor"),
    ],
)
def test_classes_that_would_ask_are_no_way_in(clip: Path, file: str, key: str, name: str) -> None:
    marker = plant(clip)
    maps = {auto: ref for each in MAPS.values() for auto, ref in each.items()}
    maps |= {"AutoProcessor": "code.ForeignProcessor", "AutoFeatureExtractor": "code.ForeignProcessor"}
    (clip / "processor_config.json").write_text(json.dumps({"auto_map": maps}))
    if file != "tokenizer_config.json":
        change(clip / "preprocessor_config.json", image_processor_type=None, auto_map=maps)
        change(clip / "tokenizer_config.json", tokenizer_class=None)
    change(clip / file, **{key: name})
    with pytest.raises(InputError, match=f"its {key} is '{name}', which is no") as error:
        build(clip)
    assert "\n" not in str(error.value)
    assert not marker.exists()


def test_code_of_a_part_s_settings_is_not_asked_about(clip: Path) -> None:
    marker = plant(clip)
    part = {"model_type": "align_vision_model", "auto_map": {"AutoModel": "code.ForeignModel"}}
    text = {"model_type": "bert", "auto_map": {"AutoModel": "code.ForeignModel"}}
    for folder in (clip, str(clip)):
        part["_name_or_path"] = text["_name_or_path"] = str(folder)
    config = {"model_type": "vision-text-dual-encoder", "vision_config": part, "text_config": text}
    (clip / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError):
        build(clip)
    assert not marker.exists()


@pytest.mark.parametrize("names", [["config.json"], ["tokenizer_config.json", "preprocessor_config.json"]])
def test_trusted_code_runs(clip: Path, names: list[str]) -> None:
    marker = plant(clip, *names)
    if "config.json" in names:
        change(clip / "config.json", model_type="foreign")
    build(clip, trust_remote_code=True)
    assert marker.read_text() == "foreign code ran"


def test_sizes_that_are_not_those_of_the_weights_are_named(clip: Path) -> None:
    text = json.loads((clip / "config.json").read_text())["text_config"]
    change(clip / "config.json", text_config=text | {"intermediate_size": 40})
    with pytest.raises(InputError, match=r"don't fit its config.json.*keys of another size.*fc1"):
        build(clip)


def test_pickles_are_no_way_in(clip: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return (Path.touch, (marker,))

    (clip / "model.safetensors").unlink()
    torch.save(Evil(), clip / "pytorch_model.bin")
    with pytest.raises(InputError) as error:
        build(clip)
    assert "\n" not in str(error.value)
    assert not marker.exists()


def test_run_folder_runs_no_code_of_its_tokenizer(tiny_pairs, tmp_path, evaluate_main, refusal):
    run = save_run(tmp_path / "run", tiny_pairs)
    marker = plant(run.model_dir, "config.json", "tokenizer_config.json")
    evaluate_main(run.path)  # the tokenizer's class is of transformers
    auto_map = {"AutoProcessor": "code.ForeignProcessor"}
    (run.model_dir / "processor_config.json").write_text(json.dumps({"auto_map": auto_map}))
    for name, message in (
        ("AutoProcessor", "its tokenizer_class is 'AutoProcessor', which is no"),
        ("BertModel", "its tokenizer_class is 'BertModel', which is no"),
        (None, "code of its own"),
    ):
        change(run.model_dir / "tokenizer_config.json", tokenizer_class=name)
        assert message in refusal(evaluate_main, run.path)
    assert not marker.exists()
    evaluate_main(run.path, "--trust_remote_code")
    assert marker.exists()


def test_every_loading_says_whether_code_is_trusted() -> None:
    folders = ("data_utils", "modeling", "evaluation", "run_files", "training", "benchmarks")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    silent, spoken = [], 0
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("from_pretrained", "from_config"):
                says = any(keyword.arg in ("trust_remote_code", None) for keyword in node.keywords)
                says = (
                    says or ast.unparse(node.func) == "SentimentProcessor.from_config"
                )  # our own, which loads nothing
                spoken += says
                silent += [] if says else [f"{path}:{node.lineno}"]
    assert silent == []
    assert spoken >= 5
