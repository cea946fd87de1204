"""The rows of a run through its model: each once under any number of ranks, and again with a modality left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from conftest import ROOT
from evaluating import LABELS, NUM_VAL, build_tiny_model
from launching import launch

from evaluation.predict import inference
from evaluation.predict.inference import check_rows_counted_once, classify, run_inference
from evaluation.predict.loaded_run import LoadedRun, load_run
from evaluation.scores.contributions import INPUTS
from evaluation.tasks.ablation import AskInputs, blank_batch
from modeling.classifier import SentimentClassifier
from modeling.ensemble import JointModels
from modeling.errors import InputError
from run_files.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("fresh_state")


def prepare(run: RunFolder) -> tuple[LoadedRun, SentimentClassifier, Accelerator]:
    loaded = load_run(run.path)
    return loaded, loaded.load_model(), Accelerator(cpu=True)


def test_inference_gives_each_row_its_own_output_in_order(tiny_run: RunFolder) -> None:
    loaded, model, accelerator = prepare(tiny_run)
    rows = loaded.load_split_rows("val")
    options = {"accelerator": accelerator, "step": classify}
    found = run_inference(model, rows, loaded.collator, batch_size=8, **options)["probabilities"]
    assert found.shape == (NUM_VAL, 3)
    for index in (0, 17, NUM_VAL - 1):
        alone = classify(model, loaded.collator([rows[index]]))["probabilities"]
        torch.testing.assert_close(found[index], alone[0].detach(), atol=1e-6, rtol=0)
    assert found.std(dim=0).max() > 0.01


def test_inference_fetches_no_batch_again_with_each_later_one(
    tiny_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, model, accelerator = prepare(tiny_run)
    fetched, fetch = [], inference._fetch
    monkeypatch.setattr(inference, "_fetch", lambda outputs: fetched.append(1) or fetch(outputs))
    rows = loaded.load_split_rows("val")
    run_inference(model, rows, loaded.collator, batch_size=1, accelerator=accelerator, step=classify)
    assert NUM_VAL <= len(fetched) <= 2 * NUM_VAL


def test_inference_leaves_the_model_in_its_mode(tiny_run: RunFolder) -> None:
    loaded, model, accelerator = prepare(tiny_run)
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
    with pytest.raises(RuntimeError, match="missing: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more"):
        check_rows_counted_once(torch.tensor([0]), 13)
    with pytest.raises(RuntimeError, match="not in the data set: 7"):
        check_rows_counted_once(torch.tensor([0, 1, 2, 7]), 3)


def test_output_that_is_not_finite_is_refused(tiny_run: RunFolder) -> None:
    loaded, model, accelerator = prepare(tiny_run)
    with torch.no_grad():
        model.missing_text.fill_(float("nan"))

    def step(model: SentimentClassifier, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        batch["text_present"][batch["row_index"] == 3] = False
        return classify(model, batch)

    rows, options = loaded.load_split_rows("val"), {"batch_size": 8, "accelerator": accelerator, "step": step}
    with pytest.raises(InputError, match="not finite for 1 of 51 rows"):
        run_inference(model, rows, loaded.collator, **options)


@pytest.mark.parametrize("ablation_input", ["mask", "blank"])
@pytest.mark.parametrize("fusion", ["early", "co_attn", "text_only", "image_only"])
def test_inputs_equal_four_forwards_with_one_pass_of_each_tower(
    tiny_run: RunFolder, fusion: str, ablation_input: str
) -> None:
    loaded, _, accelerator = prepare(tiny_run)
    model = build_tiny_model(fusion, vocab_size=len(loaded.tokenizer))
    rows, collator = loaded.load_split_rows("val"), loaded.collator
    calls = {"text_tower": 0, "image_tower": 0}
    for name in calls:
        if getattr(model, name) is not None:
            counter = lambda *_, name=name: calls.__setitem__(name, calls[name] + 1)  # noqa: E731
            getattr(model, name).register_forward_hook(counter)
    step = AskInputs(INPUTS, blank_batch(collator, loaded.tokenizer, ablation_input))
    options = {"batch_size": 10, "accelerator": accelerator, "step": step}
    found = {name: each[:, 0] for name, each in run_inference(JointModels([model]), rows, collator, **options).items()}
    num_batches = 6
    assert calls["text_tower"] == (0 if fusion == "image_only" else num_batches + 1)
    assert calls["image_tower"] == (0 if fusion == "text_only" else num_batches + 1)

    batch = collator([rows[index] for index in range(NUM_VAL)])
    no_text = blank_text(batch, ablation_input, loaded)
    expected = {
        "full": classify(model, batch),
        "text_only": classify(model, blank_image(batch, ablation_input)),
        "image_only": classify(model, no_text),
        "none": classify(model, blank_image(no_text, ablation_input)),
    }
    for name, outputs in expected.items():
        torch.testing.assert_close(found[name], outputs["probabilities"].detach(), atol=1e-5, rtol=0)
    if fusion == "early":
        assert (found["full"] - found["text_only"]).abs().max() > 1e-3
    if fusion in ("text_only", "image_only"):  # which owe the other modality exactly nothing
        (other,) = {"text_only", "image_only"} - {fusion}
        assert torch.equal(found["full"], found[fusion])
        assert torch.equal(found["none"], found[other])
        assert (found[other] - found[other][0]).abs().max() < 1e-6


def blank_image(batch: dict[str, torch.Tensor], ablation_input: str) -> dict[str, torch.Tensor]:
    if ablation_input == "mask":
        return batch | {"image_present": torch.zeros_like(batch["image_present"])}
    return batch | {"pixel_values": torch.zeros_like(batch["pixel_values"])}


def blank_text(batch: dict[str, torch.Tensor], ablation_input: str, run: LoadedRun) -> dict[str, torch.Tensor]:
    if ablation_input == "mask":
        return batch | {"text_present": torch.zeros_like(batch["text_present"])}
    input_ids = torch.tensor(run.tokenizer("")["input_ids"]).expand(len(batch["labels"]), -1)
    return batch | {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


WORKER = """
import runpy, sys
import torch
from accelerate import Accelerator
from data_utils.prepare.pairs import add_row_index
from evaluation.predict.inference import classify, run_inference
from modeling.ensemble import JointModels
from evaluation.predict.loaded_run import load_run

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


def test_two_ranks_give_what_one_gives(
    tiny_run: RunFolder, tmp_path: Path, evaluate_main: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "list.txt"
    source.write_text("\n".join(f"p{number},{LABELS[number % 3]}" for number in range(NUM_VAL)))
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = [worker, tiny_run.path, source, tmp_path / "two.txt", tmp_path / "found"]
    printed = launch(["torchrun", "--standalone", "--nproc_per_node", "2"], *map(str, words))
    assert printed.count("51 predictions are in") == 1

    loaded, model, accelerator = prepare(tiny_run)
    rows = loaded.load_split_rows("val")
    options = {"batch_size": 4, "accelerator": accelerator, "step": classify}
    alone = run_inference(model, rows, loaded.collator, **options)["probabilities"]
    for rank in range(2):
        found = torch.load(tmp_path / f"found.{rank}", weights_only=True)
        torch.testing.assert_close(found["all"], alone, atol=1e-6, rtol=0)
        torch.testing.assert_close(found["one"], alone[5:6], atol=1e-6, rtol=0)
        assert found["error"].endswith("Rows missing: 50; counted more than once: 7.")

    evaluate_main(tiny_run.path, "--predict", source, "--output", tmp_path / "one.txt")
    for ending in ("txt", "metrics.json"):
        assert (tmp_path / f"two.{ending}").read_text() == (tmp_path / f"one.{ending}").read_text()
