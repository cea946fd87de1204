"""Every file in accelerate_configs/ launches, with the world size and the wrapping that it promises."""

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from conftest import ROOT
from launching import launch, launcher, needs_compiler, train_flags

from modeling.errors import InputError
from training.launch.checks import choose_precision

CONFIGS = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
# What train.py's flags decide; here it would override them or contradict them.
DECIDED_BY_FLAGS = {"mixed_precision", "gradient_accumulation_steps", "gradient_clipping", "dynamo_config"}
PRECISIONS = {"multi_gpu_bf16": "bf16", "fp8": "fp8"}  # these files are about it
LAUNCHED_HERE = ("cpu", "multi_gpu", "multi_gpu_bf16", "fp8", "zero1", "zero2", "zero3", "zero3_offload")
# By test_fsdp.py, test_multi_node.py and test_launch.py.
LAUNCHED_ELSEWHERE = ("fsdp2", "multi_node", "multi_node_zero3", "single_gpu")


def read(path):
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_is_short_and_says_what_each_key_is_for(config):
    load_config_from_file(str(config))
    keys = [line for line in config.read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in keys if " # " not in line] == []
    decided = DECIDED_BY_FLAGS & read(config).keys()
    assert decided == ({"mixed_precision"} if config.stem in PRECISIONS else set())
    assert read(config).get("mixed_precision", "no") == PRECISIONS.get(config.stem, "no")


def test_every_config_is_launched_by_a_test():
    assert sorted(config.stem for config in CONFIGS) == sorted((*LAUNCHED_HERE, *LAUNCHED_ELSEWHERE))


def test_fp8_is_refused_where_it_cannot_be_had(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    words = train_flags(tmp_path, tmp_path / "run")
    screen = launch(launcher("fp8", 2), *words, code=1)
    assert "FP8 is not available" in screen or "mixed_precision: fp8 on a machine without an accelerator" in screen


@pytest.mark.parametrize(
    ("config", "flags", "expected"),
    [
        ("multi_gpu_bf16", ["--fp16"], ["mixed_precision: bf16, the command line says --fp16"]),
        (
            "own",
            ["--gradient_accumulation_steps", "2"],
            ["gradient_accumulation_steps=3 vs hf", "gradient_clipping=0.5 vs hf max_grad_norm=1.0"],
        ),
    ],
)
def test_contradiction_of_file_and_flags_names_both_once(config, flags, expected, tmp_path, make_pairs, numbered_rows):
    command = launcher(config, 1 if config == "own" else 2)
    if config == "own":
        file = tmp_path / "own.yaml"
        settings = read(ROOT / "accelerate_configs" / "zero2.yaml")
        settings["deepspeed_config"] |= {"gradient_clipping": 0.5, "gradient_accumulation_steps": 3}
        file.write_text(yaml.safe_dump(settings))
        command[command.index("--config_file") + 1] = str(file)
    words = train_flags(make_pairs(numbered_rows(20)), tmp_path / "run", *flags)
    screen = launch(command, *words, code=1)
    errors = [line for line in screen.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert [words for words in expected if words not in errors[0]] == []


def test_precision_that_the_launcher_names_is_not_to_be_denied(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(InputError, match="mixed_precision: bf16, the command line says --bf16 False"):
        choose_precision(bf16=False, fp16=None)
    assert choose_precision(bf16=None, fp16=None) == "bf16"


@pytest.mark.parametrize(
    ("config", "ranks", "strategy", "precision"),
    [
        ("cpu", 1, "one process; 100% of the parameters", "float32"),
        ("multi_gpu", 2, "DistributedDataParallel; 100% of the parameters", "float32"),
        pytest.param(
            *("multi_gpu_bf16", 2, "DistributedDataParallel; 100% of the parameters", "bf16 computation (autocast)"),
            marks=pytest.mark.slow,
        ),
        pytest.param("zero1", 2, "DeepSpeedEngine, ZeRO-1; 100%", "float32", marks=[needs_compiler, pytest.mark.slow]),
        pytest.param("zero2", 2, "DeepSpeedEngine, ZeRO-2; 100%", "float32", marks=[needs_compiler, pytest.mark.slow]),
        pytest.param("zero3", 2, "DeepSpeedEngine, ZeRO-3; 50%", "float32", marks=needs_compiler),
        pytest.param(
            *("zero3_offload", 2, "ZeRO-3, offload_param and offload_optimizer to the CPU; 50%", "float32"),
            marks=[needs_compiler, pytest.mark.slow],
        ),
    ],
)
def test_dry_run_tells_what_the_launch_really_is(
    config, ranks, strategy, precision, tmp_path, make_pairs, numbered_rows
):
    run, pairs = tmp_path / "run", make_pairs(numbered_rows(40))
    (pairs / "data" / "107.jpg").unlink()
    words = train_flags(pairs, run, "--dry_run", "--gradient_accumulation_steps", "2")
    cold = config == "zero2"  # DeepSpeed's own start; of others tests/launches/test_launch.py shows it
    screen = launch(launcher(config, ranks if ranks > 1 else None), *words, cold=cold)
    sheet = dict(line.split("  ", 1) for line in screen.splitlines() if "  " in line)
    sheet = {name: fact.strip() for name, fact in sheet.items()}
    assert sheet["ranks"].startswith(f"{ranks}: {ranks} x cpu")
    assert strategy in sheet["strategy"]
    assert sheet["precision"].startswith(precision)
    assert sheet["batch"] == f"8 per device x 2 accumulated x {ranks} ranks = {16 * ranks} rows per update"
    assert sheet["unused parameters"] == "none"
    assert sheet["faulty rows"].startswith("missing_image: 1 ")
    assert "built just now" in sheet["cache"]
    total = float(sheet["memory per rank, measured"].split(" MB")[0])
    assert total == pytest.approx(float(sheet["memory per rank, estimated"].split(" MB")[0]), rel=0.4)
    assert not run.exists()
