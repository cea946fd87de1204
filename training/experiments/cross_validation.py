"""`train.py --folds K --seeds S`: every row is judged by models that saw neither it nor a twin of it."""

from __future__ import annotations

import gc
import logging
from dataclasses import replace
from typing import Any

from accelerate.state import AcceleratorState

from data_utils.prepare.pairs import Pairs, load_pairs
from data_utils.splits.draw import find_strata, hold_out, make_folds
from data_utils.splits.groups import check_fold_sizes, find_groups
from data_utils.splits.split_file import Split
from data_utils.system.files import write_text
from data_utils.tables.opening import open_source
from evaluation.report.writing import report_at_end
from evaluation.scores.out_of_fold import calibrate_folds, format_out_of_fold, write_out_of_fold
from modeling.configuration import SentimentConfig
from modeling.errors import InputError
from run_files.folds_folder import SECTION, FoldsFolder, Member
from run_files.model_folder import check_model_file
from run_files.output import write_json
from run_files.run_folder import RunFolder
from training.build.plan import plan_model
from training.engine.updates import check_updates
from training.experiments.training import train
from training.flags.own import LATEST
from training.flags.parsing import Flags, settle
from training.launch.checks import check_same_everywhere, shares_files, wait_for_everyone
from training.launch.console import quiet
from training.launch.ranks import is_main_process
from training.launch.trackers import tracked
from training.runs.claim import lock_run, make_run_folder, open_folder
from training.runs.record import describe_run, hash_flags, hash_splits
from training.runs.run import note_interruption, write_own_card
from training.runs.tracking import show_result

logger = logging.getLogger(__name__)
# Of the data, what their fingerprint doesn't know.
LIMITS = ("max_length", "max_train_samples", "max_eval_samples")


def cross_validate(flags: Flags) -> None:
    """Train K x S models, each an ordinary run of its own, and write what they say of the rows they never saw.

    The folds are drawn from --seed and are the same for all seeds. A fold's rows choose nothing: the best epoch is
    that of --val_ratio of the other rows (0: the last epoch).
    """
    check_supported(flags)
    flags = settle(flags)
    run = make_run_folder(flags)
    args = flags.training.replace(run_name=flags.training.run_name or run.path.name)
    flags = flags._replace(training=args)
    if not shares_files(run.path):
        raise InputError(f"The machines of a cross-validation must see the same files; {run.path} is not shared.")
    folder = FoldsFolder(run.path, range(args.seed, args.seed + args.seeds), args.folds or 0)
    with tracked(run.path, str(args.run_name)), lock_run(run):
        splits, pairs = draw_folds(flags)
        check_same_everywhere({"data_fingerprint": pairs.fingerprint, "folds_sha256": hash_splits(splits)})
        check_updates(min(len(split.train) for split in splits), args)
        with args.main_process_first(local=False):
            if is_main_process():
                _open(folder, flags, splits, pairs)
        _train_missing(folder, flags)
        if is_main_process():
            scores = _write_results(folder, flags.data.task)
            figures = {"test": scores["averaged"]}
            show_result(flags, run.path, str(args.run_name), figures, pictures=sorted(run.path.glob("*.png")))
            if not args.no_report:
                report_at_end(run.path, flags.data.cache_dir)


def _train_missing(folder: FoldsFolder, flags: Flags) -> None:
    """Train the members that aren't finished; what is the same for all is said once."""
    members = folder.members()
    missing = [member for member in members if not member.is_finished]
    wait_for_everyone()  # all have looked before the first is written
    for number, member in enumerate(missing):
        # Of the whole run as well: who waits for it to be resumed looks there.
        with quiet(number > 0), note_interruption(folder, flags.training):
            train(_flags_of(member, folder, flags))
        gc.collect()
        AcceleratorState._reset_state()  # or accelerate refuses a second DeepSpeed engine
        if is_main_process():
            scores = member.load_metrics()["test"]
            shown = ", ".join(f"{name} {value:.3f}" for name, value in scores.items() if isinstance(value, float))
            place = (member.path.name, members.index(member) + 1, len(members))
            logger.info("%s (%d of %d): held-out %s", *place, shown)


def draw_folds(flags: Flags) -> tuple[tuple[Split, ...], Pairs]:
    """The splits of the folds, and the pairs."""
    _, data, args = flags
    plan = plan_model(flags.model, data)
    pairs = load_pairs(open_source(data), data=data, picture=plan.picture, needs=plan.reads)
    if pairs.declared:
        raise InputError(
            f"Got --folds {args.folds} and data that declare their parts ({', '.join(pairs.declared)}); to deal the "
            "rows for training into folds add --val_split none --test_split none, or leave --val_data and --test_data."
        )
    columns = pairs.dataset.select_columns(["guid", "label"]).with_format(None)[:]
    groups = find_groups(pairs.dataset, data.group_by)
    rows = (columns["guid"], find_strata(columns["label"]), groups)
    folds = make_folds(*rows, num_folds=args.folds or 0, seed=args.seed)
    check_fold_sizes(folds, pairs.dataset, groups)
    return tuple(hold_out(fold, *rows, val_ratio=data.val_ratio, seed=args.seed) for fold in folds), pairs


def check_supported(flags: Flags) -> None:
    """`InputError` for what many trainings can't do."""
    _, data, args = flags
    if data.max_train_samples is not None:
        check_updates(data.max_train_samples, args)
    for flag, is_given, reason in (
        ("--streaming", data.streaming, "has no rows to deal into folds"),
        ("--split_file", data.split_file is not None, "splits the rows already"),
        ("--dry_run", args.dry_run, "shows one training"),
        ("--profile", args.profile, "shows one training"),
    ):
        if is_given:
            raise InputError(f"Got --folds {args.folds} and {flag}, which {reason}; leave one of the two out.")
    if args.resume_from_checkpoint not in (None, LATEST):
        raise InputError(
            f"Got --folds and --resume_from_checkpoint {args.resume_from_checkpoint}; of many trainings only {LATEST} "
            "says where to go on."
        )


def _open(folder: FoldsFolder, flags: Flags, splits: tuple[Split, ...], pairs: Pairs) -> None:
    """Go on with the folder's run if that is asked for, else make room; write what is known beforehand."""
    sections = describe_run(folder, flags, {"data_fingerprint": pairs.fingerprint})
    limits = {name: sections["data"][name] for name in LIMITS}
    digest = hash_flags(sections, pairs.fingerprint, limits, hash_splits(splits))
    sections[SECTION] = {"num_folds": folder.num_folds, "seeds": list(folder.seeds), "sha256": digest}
    if not (folder.config_file.exists() and flags.training.resume_from_checkpoint == LATEST):
        open_folder(folder, sections, splits, pairs.quarantine)
    elif folder.load_arguments().get(SECTION, {}).get("sha256") != digest:
        raise InputError(
            f"{folder.path} holds a run of other flags, data or folds: what it has finished doesn't belong to this "
            f"one. Use the flags of {folder.config_file}, or another --output_dir."
        )


def _flags_of(member: Member, folder: FoldsFolder, flags: Flags) -> Flags:
    """The flags of one member; a training that was cut off is gone on with."""
    args = flags.training.replace(
        seed=member.seed,
        output_dir=str(member.path),
        run_name=f"{flags.training.run_name}-{member.path.name}",
        folds=None,
        seeds=1,
        no_report=True,
        resume_from_checkpoint=LATEST if RunFolder(member.path).checkpoints_dir.exists() else None,
    )
    # Cached by the first: --overwrite_cache would prepare the same data for each member.
    data = replace(flags.data, split_file=str(folder.fold_split_file(member.fold)), overwrite_cache=False)
    return Flags(flags.model, data, args)


def _write_results(folder: FoldsFolder, task: str) -> dict[str, Any]:
    temperatures = calibrate_folds(folder) if task == "single_label" else {}
    for member in folder.members() if temperatures else ():
        path = RunFolder(member.path).model_dir
        check_model_file(path / "config.json")
        config = SentimentConfig.from_pretrained(path, trust_remote_code=False)
        config.temperature = temperatures[member.fold]
        write_text(path / "config.json", config.to_json_string())  # whole or not at all, unlike save_pretrained
        write_own_card(member, config)
    scores = write_out_of_fold(folder, temperatures)
    metrics = [member.load_metrics() for member in folder.members()]
    is_whole = all(each["training"]["resumed_at_step"] is None for each in metrics)  # else the last launch's alone
    seconds = sum(each["training"]["seconds"] for each in metrics) if is_whole else None
    training = {"num_trainings": len(metrics), "seconds": seconds}
    write_json(
        folder.metrics_file, {"out_of_fold": scores, "parameters": metrics[0]["parameters"], "training": training}
    )
    logger.info("%s", format_out_of_fold(scores))
    logger.info("The run is in %s; evaluate it with: python evaluate.py %s", folder.path, folder.path)
    return scores
