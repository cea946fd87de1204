"""evaluate.py and its parts on a run of a tiny model: every row once, honest ablation, prediction of any list."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image

from data_utils import (
    DataArguments,
    InputError,
    PictureSettings,
    load_pairs,
    make_split,
    save_split,
    train_wordpiece,
)
from evaluation.ablation import run_ablation
from evaluation.inference import check_rows_counted_once, classify, run_inference
from evaluation.loaded_run import LoadedRun, load_run
from evaluation.run_folder import RunFolder
from modeling import SentimentClassifier, SentimentConfig

REPOSITORY = Path(__file__).resolve().parents[1]
NUM_PAIRS = 60
NUM_VAL = 51
LABELS = ["negative", "neutral", "positive"]
PICTURE = PictureSettings(image_size=16, shortest_edge=16, resize_mode="squash", resample=2)
WORDS = ["sun", "rain", "happy", "sad", "train", "late", "friend", "cake", "storm", "the", "is", "was", "so"]


def write_pair(folder: Path, guid: str, rng: random.Random) -> None:
    (folder / f"{guid}.txt").write_text(f"{guid} " + " ".join(rng.choices(WORDS, k=rng.randint(1, 9))))
    Image.new("RGB", (20, 18), tuple(rng.randrange(256) for _ in range(3))).save(folder / f"{guid}.jpg")


def build_tiny_model(fusion: str, *, vocab_size: int) -> SentimentClassifier:
    """A random BERT and ViT of width 16; logits differ clearly between rows."""
    common = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {"class_name": "BertModel", "config": {**common, "vocab_size": vocab_size}, "projection_dim": None}
    vision = {"class_name": "ViTModel", "config": {**common, "image_size": 16, "patch_size": 8}, "projection_dim": None}
    config = SentimentConfig(
        fusion=fusion,
        text_tower=None if fusion == "image_only" else text,
        vision_tower=None if fusion == "text_only" else vision,
        max_length=12,
        picture=PICTURE.to_dict(),
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    torch.manual_seed(0)
    model = SentimentClassifier(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "data").mkdir()
    rng = random.Random(0)
    lines = ["guid,tag"]
    for number in range(NUM_PAIRS):
        write_pair(folder / "data", f"p{number}", rng)
        lines.append(f"p{number},{LABELS[number % 3]}")
    (folder / "train.txt").write_text("\n".join(lines) + "\n")
    return folder


def save_run(path: Path, data_dir: Path, *, fusion: str = "early") -> RunFolder:
    """A run folder as train.py leaves it, without the training."""
    run = RunFolder(path)
    data = DataArguments(data_dir=str(data_dir), cache_dir=str(path / "cache"), preprocessing_num_workers=1)
    pairs = load_pairs(data.list_path(), pair_dir=data_dir, data=data, picture=PICTURE)
    tokenizer = train_wordpiece(pairs.dataset["text"], vocab_size=200, max_length=12)
    model = build_tiny_model(fusion, vocab_size=len(tokenizer))
    model.save_pretrained(run.model_dir)
    tokenizer.save_pretrained(run.model_dir)
    guids = pairs.dataset["guid"][:]
    groups = [0] * NUM_VAL + list(range(1, NUM_PAIRS - NUM_VAL + 1))
    split = make_split(guids, pairs.dataset["label"][:], groups, val_ratio=0.0, seed=0)
    split = type(split)(train=tuple(guids[NUM_VAL:]), val=tuple(guids[:NUM_VAL]), seed=0, val_ratio=0.85)
    save_split(split, run.split_file)
    environment = {"data_fingerprint": pairs.fingerprint}
    run.save_arguments(
        {"model": {}, "data": asdict(data), "training": {"modality_dropout": 0.1}, "environment": environment}
    )
    return run


@pytest.fixture(scope="module")
def run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return save_run(tmp_path_factory.mktemp("run"), data_dir)


@pytest.fixture(autouse=True)
def _fresh_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM"):  # evaluate.py sets them
        monkeypatch.setenv(name, "1" if name == "HF_HUB_OFFLINE" else "false")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny models only wait for each other's threads; torchrun sets 1 as well
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(num_threads)


@pytest.fixture
def evaluate_main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """main of evaluate.py, loaded under another name than the package's."""
    spec = spec_from_file_location("evaluate_entry", REPOSITORY / "evaluate.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main([str(argument) for argument in arguments])


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def prepare(run: RunFolder) -> tuple[LoadedRun, SentimentClassifier, Accelerator]:
    loaded = load_run(run.path)
    return loaded, loaded.load_model(), Accelerator(cpu=True)


def test_inference_gives_each_row_its_own_output_in_order(run: RunFolder) -> None:
    loaded, model, accelerator = prepare(run)
    rows = loaded.load_split_rows("val")
    options = {"accelerator": accelerator, "step": classify}
    found = run_inference(model, rows, loaded.collator, batch_size=8, **options)["probabilities"]
    assert found.shape == (NUM_VAL, 3)
    for index in (0, 17, NUM_VAL - 1):
        alone = classify(model, loaded.collator([rows[index]]))["probabilities"]
        torch.testing.assert_close(found[index], alone[0].detach(), atol=1e-6, rtol=0)
    assert found.std(dim=0).max() > 0.01


def test_inference_leaves_the_model_in_its_mode(run: RunFolder) -> None:
    loaded, model, accelerator = prepare(run)
    rows, model = loaded.load_split_rows("train"), model.train()
    options = {"batch_size": 4, "accelerator": accelerator, "step": classify}
    first = run_inference(model, rows, loaded.collator, **options)["probabilities"]
    assert model.training
    # With dropout on, two passes would differ.
    assert torch.equal(first, run_inference(model, rows, loaded.collator, **options)["probabilities"])


def test_rows_missing_repeated_or_unknown_are_named() -> None:
    check_rows_counted_once(torch.tensor([2, 0, 1]), 3)
    with pytest.raises(RuntimeError, match="missing: 1; counted more than once: 0"):
        check_rows_counted_once(torch.tensor([0, 0, 2]), 3)
    with pytest.raises(RuntimeError, match="not in the data set: 7"):
        check_rows_counted_once(torch.tensor([0, 1, 2, 7]), 3)


def test_output_that_is_not_finite_is_refused(run: RunFolder) -> None:
    loaded, model, accelerator = prepare(run)
    with torch.no_grad():
        model.missing_text.fill_(float("nan"))

    def step(model: SentimentClassifier, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        batch["text_present"][batch["row_index"] == 3] = False
        return classify(model, batch)

    with pytest.raises(InputError, match="not finite for 1 of 51 rows"):
        run_inference(
            model,
            loaded.load_split_rows("val"),
            loaded.collator,
            batch_size=8,
            accelerator=accelerator,
            step=step,
        )


@pytest.mark.parametrize("ablation_input", ["mask", "blank"])
@pytest.mark.parametrize("fusion", ["early", "co_attn", "text_only", "image_only"])
def test_ablation_equals_three_forwards_with_one_pass_of_each_tower(
    run: RunFolder, fusion: str, ablation_input: str
) -> None:
    loaded, _, accelerator = prepare(run)
    model = build_tiny_model(fusion, vocab_size=len(loaded.tokenizer))
    rows, collator = loaded.load_split_rows("val"), loaded.collator
    calls = {"text_tower": 0, "image_tower": 0}
    for name in calls:
        if getattr(model, name) is not None:
            counter = lambda *_, name=name: calls.__setitem__(name, calls[name] + 1)  # noqa: E731
            getattr(model, name).register_forward_hook(counter)
    found = run_ablation(
        model,
        rows,
        collator,
        loaded.tokenizer,
        batch_size=10,
        accelerator=accelerator,
        ablation_input=ablation_input,
    )
    num_batches = 6
    assert calls["text_tower"] == (0 if fusion == "image_only" else num_batches + 1)
    assert calls["image_tower"] == (0 if fusion == "text_only" else num_batches + 1)

    batch = collator([rows[index] for index in range(NUM_VAL)])
    expected = {
        "full": classify(model, batch),
        "text_only": classify(model, blank_image(batch, ablation_input)),
        "image_only": classify(model, blank_text(batch, ablation_input, loaded)),
    }
    for name, outputs in expected.items():
        torch.testing.assert_close(found[name], outputs["probabilities"].detach(), atol=1e-5, rtol=0)
    if fusion == "early":
        assert (found["full"] - found["text_only"]).abs().max() > 1e-3
    if fusion == "text_only":
        assert torch.equal(found["full"], found["text_only"])
        assert (found["image_only"] - found["image_only"][0]).abs().max() < 1e-6


def blank_image(batch: dict[str, torch.Tensor], ablation_input: str) -> dict[str, torch.Tensor]:
    if ablation_input == "mask":
        return batch | {"image_present": torch.zeros_like(batch["image_present"])}
    return batch | {"pixel_values": torch.zeros_like(batch["pixel_values"])}


def blank_text(batch: dict[str, torch.Tensor], ablation_input: str, run: LoadedRun) -> dict[str, torch.Tensor]:
    if ablation_input == "mask":
        return batch | {"text_present": torch.zeros_like(batch["text_present"])}
    input_ids = torch.tensor(run.tokenizer("")["input_ids"]).expand(len(batch["labels"]), -1)
    return batch | {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def test_unknown_ablation_input_is_refused(run: RunFolder) -> None:
    loaded, model, accelerator = prepare(run)
    rows = loaded.load_split_rows("val")
    options = {"batch_size": 8, "accelerator": accelerator, "ablation_input": "noise"}
    with pytest.raises(InputError, match="allowed are mask, blank"):
        run_ablation(model, rows, loaded.collator, loaded.tokenizer, **options)


def test_main_scores_the_parts_of_the_split(
    run: RunFolder, evaluate_main: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for split, num_rows in (("val", NUM_VAL), ("train", NUM_PAIRS - NUM_VAL), ("all", NUM_PAIRS)):
        evaluate_main(run.path, "--split", split)
        saved = json.loads(run.evaluation_file(split).read_text())
        assert saved["num_rows"] == num_rows
        assert f"{num_rows} rows" in capsys.readouterr().out


def test_main_writes_and_prints_the_ablation(
    run: RunFolder, evaluate_main: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_main(run.path, "--ablation")
    saved = json.loads((run.path / "ablation.json").read_text())
    assert list(saved["inputs"]) == ["full", "text_only", "image_only"]
    assert saved["ablation_input"] == "mask"
    assert all("macro_f1_interval" in metrics for metrics in saved["inputs"].values())
    evaluate_main(run.path)
    assert saved["inputs"]["full"]["accuracy"] == json.loads(run.evaluation_file("val").read_text())["accuracy"]
    assert "image_only" in capsys.readouterr().out


BAD_LIST = ["p3,positive", "../x,null", "p3,neutral", "nothing,null", "half,null", "p4,unheard", "p5"]


@pytest.mark.parametrize("header", [True, False])
def test_prediction_answers_every_row_in_order(
    run: RunFolder,
    data_dir: Path,
    tmp_path: Path,
    evaluate_main: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    header: bool,
) -> None:
    (data_dir / "data" / "half.txt").write_text("a happy day without a picture")
    source, output = tmp_path / "list.txt", tmp_path / "new" / "folder" / "tags.txt"
    source.write_text("\r\n".join([*(["guid,tag"] if header else []), *BAD_LIST]) + "\r\n\r\n")
    evaluate_main(run.path, "--predict", source, "--output", output)
    lines = output.read_text().splitlines()
    assert lines[: int(header)] == ["guid,tag"][: int(header)]
    rows = [line.split(",") for line in lines[int(header) :]]
    assert [guid for guid, _ in rows] == ["p3", "../x", "p3", "nothing", "half", "p4", "p5"]
    assert {tag for _, tag in rows} <= set(LABELS)
    assert rows[0] == rows[2]

    probabilities = read_rows(output.with_name("tags.probabilities.csv"))
    assert probabilities[0] == ["guid", "prediction", *(f"prob_{label}" for label in LABELS)]
    assert [row[:2] for row in probabilities[1:]] == rows
    assert probabilities[2][2:] == probabilities[4][2:]  # nothing is known of either
    quarantine = read_rows(output.with_name("tags.quarantine.csv"))
    assert {"invalid_guid", "duplicate_guid", "missing_image", "unknown_label"} <= {row[2] for row in quarantine}
    metrics = json.loads(output.with_name("tags.metrics.json").read_text())
    assert metrics["num_rows"] == 2
    assert "7 predictions are in" in capsys.readouterr().out


def test_prediction_leaves_no_files_of_an_earlier_one(
    run: RunFolder, tmp_path: Path, evaluate_main: Callable[..., None]
) -> None:
    source, output = tmp_path / "list.txt", tmp_path / "tags.txt"
    source.write_text("p1,null\n../x,positive\n")
    evaluate_main(run.path, "--predict", source, "--output", output)
    assert output.with_name("tags.quarantine.csv").exists()
    source.write_text("p1,null\np2,null\n")
    evaluate_main(run.path, "--predict", source, "--output", output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.txt", "tags.probabilities.csv", "tags.txt"]


def test_prediction_reads_pairs_beside_the_list_unless_told_otherwise(
    run: RunFolder, data_dir: Path, tmp_path: Path, evaluate_main: Callable[..., None]
) -> None:
    (tmp_path / "data").mkdir()
    write_pair(tmp_path / "data", "new", random.Random(1))
    source = tmp_path / "list.txt"
    source.write_text("new,null\np1,null\n")
    faulty = {}
    for name, options in {"beside": [], "told": ["--data_dir", data_dir]}.items():
        evaluate_main(run.path, "--predict", source, "--output", tmp_path / f"{name}.txt", *options)
        faulty[name] = {row[1] for row in read_rows(tmp_path / f"{name}.quarantine.csv")[1:]}
    assert faulty == {"beside": {"p1"}, "told": {"new"}}


def expect_error(capsys: pytest.CaptureFixture[str], main: Callable[..., None], *arguments: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(*arguments)
    assert exit_info.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr.count("error:") == 1
    assert "Traceback" not in stderr
    return stderr


def test_mistakes_end_with_one_sentence_and_code_2(
    run: RunFolder, tmp_path: Path, evaluate_main: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "list.txt"
    source.write_text("p1,null\n")
    predict = [run.path, "--predict", source]
    assert "not a folder" in expect_error(capsys, evaluate_main, tmp_path / "nowhere")
    assert "no config.yaml" in expect_error(capsys, evaluate_main, tmp_path)
    assert "without --output" in expect_error(capsys, evaluate_main, *predict)
    assert "would overwrite" in expect_error(capsys, evaluate_main, *predict, "--output", source)
    assert "not a plain file" in expect_error(capsys, evaluate_main, *predict, "--output", tmp_path)
    assert "not a plain file" in expect_error(capsys, evaluate_main, *predict, "--output", os.devnull)
    missing = [run.path, "--predict", tmp_path / "no.txt", "--output", tmp_path / "x"]
    assert "not a file" in expect_error(capsys, evaluate_main, *missing)
    elsewhere = ["--output", tmp_path / "x", "--data_dir", tmp_path]
    assert "pass --data_dir" in expect_error(capsys, evaluate_main, *predict, *elsewhere)
    assert "cannot do fp16" in expect_error(capsys, evaluate_main, run.path, "--mixed_precision", "fp16")
    assert source.read_text() == "p1,null\n"


def test_damaged_model_folder_is_named(
    data_dir: Path, tmp_path: Path, evaluate_main: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_run(tmp_path / "run", data_dir)
    (run.model_dir / "model.safetensors").unlink()
    assert "incomplete or damaged" in expect_error(capsys, evaluate_main, run.path)


def test_changed_data_are_noticed(
    data_dir: Path, tmp_path: Path, evaluate_main: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    run = save_run(tmp_path / "run", data_dir)
    evaluate_main(run.path)
    assert "another hash" not in caplog.text
    other = tmp_path / "moved"
    (other / "data").mkdir(parents=True)
    for path in data_dir.rglob("*.*"):
        (other / path.relative_to(data_dir)).write_bytes(path.read_bytes())
    evaluate_main(run.path, "--data_dir", other)
    assert "another hash" not in caplog.text
    (other / "data" / "p1.txt").write_text("changed")
    evaluate_main(run.path, "--data_dir", other)
    assert "another hash" in caplog.text


WORKER = """
import runpy, sys
import torch
from accelerate import Accelerator
from data_utils import add_row_index
from evaluation.inference import classify, run_inference
from evaluation.loaded_run import load_run

run, source, output, result = sys.argv[1:]
accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
loaded = load_run(run)
model, rows = loaded.load_model(), loaded.load_split_rows("val")
def infer(rows, collator=loaded.collator):
    return run_inference(model, rows, collator, batch_size=4, accelerator=accelerator, step=classify)["probabilities"]
def planted(rows):
    batch = loaded.collator(rows)
    batch["row_index"][batch["row_index"] == 50] = 7
    return batch
found = {"all": infer(rows), "one": infer(add_row_index(rows.select([5])))}
try:
    infer(rows, planted)
except RuntimeError as error:
    found["error"] = str(error)
torch.save(found, f"{result}.{accelerator.process_index}")
sys.argv[1:] = [run, "--predict", source, "--output", output]
runpy.run_path("evaluate.py", run_name="__main__")
"""


def test_two_ranks_give_what_one_gives(run: RunFolder, tmp_path: Path, evaluate_main: Callable[..., None]) -> None:
    source = tmp_path / "list.txt"
    source.write_text("\n".join(f"p{number},{LABELS[number % 3]}" for number in range(NUM_VAL)))
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", worker, run.path, source]
    result = subprocess.run(
        [sys.executable, *map(str, command), str(tmp_path / "two.txt"), str(tmp_path / "found")],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("51 predictions are in") == 1

    loaded, model, accelerator = prepare(run)
    rows = loaded.load_split_rows("val")
    options = {"batch_size": 4, "accelerator": accelerator, "step": classify}
    alone = run_inference(model, rows, loaded.collator, **options)["probabilities"]
    for rank in range(2):
        found = torch.load(tmp_path / f"found.{rank}", weights_only=True)
        torch.testing.assert_close(found["all"], alone, atol=1e-6, rtol=0)
        torch.testing.assert_close(found["one"], alone[5:6], atol=1e-6, rtol=0)
        assert found["error"].endswith("Rows missing: 50; counted more than once: 7.")

    evaluate_main(run.path, "--predict", source, "--output", tmp_path / "one.txt")
    for ending in ("txt", "metrics.json"):
        assert (tmp_path / f"two.{ending}").read_text() == (tmp_path / f"one.{ending}").read_text()
