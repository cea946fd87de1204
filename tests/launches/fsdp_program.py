"""Work under accelerate's FSDP on CPU ranks, launched with fsdp2.yaml; test_fsdp.py reads the answers.

    fsdp_program.py train FLAGS     train.py, which refuses such a launch by itself
    fsdp_program.py cases FOLDER    tiny models, sharded against whole; figures in FOLDER/RANK.json

accelerate chooses FSDP by the device's name and takes none on the CPU. All that it does once it has chosen runs there.
"""

import itertools
import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from tiny import tiny_batch, tiny_model
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from modeling.classifier import SentimentClassifier
from training.launch import checks
from training.launch.ranks import shut_down_distributed

CASES = {
    "baseline": ("baseline", "cross_attn", {}),
    "vilbert": ("vilbert", "transformer", {}),
    "clip": ("clip", "attn", {}),
    "clip, frozen": ("clip", "co_attn", {"freeze": "both"}),
    "clip, one tower": ("clip", "text_only", {}),
}
LABELS = torch.tensor([0, 1, 2, 1])
UPDATES = 4


def engage_fsdp():
    """accelerate's choice of FSDP (`AcceleratorState.__init__`), for CPU ranks too."""
    choose = AcceleratorState.__init__

    def choose_fsdp(self, *args, fsdp_plugin=None, **options):
        choose(self, *args, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None:
            if self.mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self.mixed_precision)
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = self.distributed_type

    AcceleratorState.__init__ = choose_fsdp


def prepare(accelerator, model):
    """Sharded as fsdp2.yaml says, with its optimizer; the plugin remembers one model's layers, hence a new one."""
    accelerator.free_memory()
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return accelerator.prepare(model, torch.optim.AdamW(trainable, lr=1e-3))


def train(model, optimizer, rows, backward):
    """The loss of each update; `rows` is this rank's part of the batch."""
    losses = []
    batch = {name: values[rows] for name, values in tiny_batch(len(LABELS)).items()}
    for _ in range(UPDATES):
        loss = model.train()(**batch, labels=LABELS[rows]).loss
        backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses)


@torch.no_grad()
def answer(model):
    logits = model.eval()(**tiny_batch(6, seed=1)).logits
    if isinstance(model, FSDPModule):
        model.reshard()  # the outermost group stays whole after a forward pass
    return logits


def compare(accelerator, folder, architecture, fusion, options):
    """Figures of one model, sharded and whole."""
    plain = tiny_model(architecture, fusion, **options)
    trainable = [parameter for parameter in plain.parameters() if parameter.requires_grad]
    expected = train(plain, torch.optim.AdamW(trainable, lr=1e-3), slice(None), lambda loss: loss.backward())

    model, optimizer = prepare(accelerator, tiny_model(architecture, fusion, **options))
    rows = slice(accelerator.process_index, None, accelerator.num_processes)
    losses = accelerator.reduce(train(model, optimizer, rows, accelerator.backward), reduction="mean")
    parameters = list(model.parameters())
    state = list(itertools.chain.from_iterable(values.values() for values in optimizer.state.values()))
    logits = answer(model)

    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if accelerator.is_main_process:
        model.save_pretrained(folder, state_dict=dict(whole))  # which it empties
    accelerator.wait_for_everyone()
    loaded = SentimentClassifier.from_pretrained(folder)
    again, _ = prepare(accelerator, tiny_model(architecture, fusion, seed=1, **options))
    fresh = answer(again)
    set_model_state_dict(again, whole, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    return {
        "losses": losses.tolist(),
        "expected": expected.tolist(),
        "groups": sorted(
            {type(part).__name__.removeprefix("FSDP") for part in model.modules() if isinstance(part, FSDPModule)}
        ),
        "whole parameters": sum(not isinstance(parameter, DTensor) for parameter in parameters),
        "whole moments": sum(value.dim() > 0 and not isinstance(value, DTensor) for value in state),
        "local share": sum(p.to_local().numel() for p in parameters) / sum(p.numel() for p in parameters),
        "keys on this rank": len(whole),
        "saved": (answer(loaded) - logits).abs().max().item(),
        "loaded back": (answer(again) - logits).abs().max().item(),
        "before loading": (fresh - logits).abs().max().item(),
    }


def run_cases(folder):
    accelerator = Accelerator(cpu=True)
    figures = {
        name: compare(accelerator, folder / name, architecture, fusion, options)
        for name, (architecture, fusion, options) in CASES.items()
    }
    (folder / f"{accelerator.process_index}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    engage_fsdp()
    if sys.argv[1] == "cases":
        run_cases(Path(sys.argv[2]))
        shut_down_distributed()
    else:
        import train as entry

        checks.check_started_as_asked = lambda: None
        entry.main(sys.argv[2:])
