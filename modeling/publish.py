"""Uploads a saved model to a hub: python -m modeling.publish RUN user/name [--private] [--revision BRANCH]."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token

from .errors import InputError, reason_of

# What a model's folder may have in it that belongs to the model.
_KNOWN = re.compile(
    r"(README\.md|config\.json|model[\w.-]*\.safetensors|model\.safetensors\.index\.json|(pre)?processor_config\.json"
    r"|(tokenizer|vocab|added_tokens|special_tokens_map)[\w.-]*\.json|(vocab|merges)\.txt|[\w.-]+\.(model|jinja|py))"
)


def open_repository(name: str, *, private: bool | None = None, token: str | None = None) -> str:
    """The whole name of a repository of the hub, which is made unless it is there.

    Raises:
        InputError: there is no token, no network, or no right to write there.
    """
    if constants.is_offline_mode() or not (token or get_token()):
        lack = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "there is no token"
        raise InputError(f"Can't publish {name}: {lack}. Log in by `hf auth login`, or set HF_TOKEN, where the hub is.")
    api = HfApi(token=token)
    with _told(name):
        found = api.create_repo(name, private=private, exist_ok=True).repo_id
        is_public = not api.model_info(found).private
    if private and is_public:
        raise InputError(f"Can't publish {name} privately: it is there, and public. Take another name.")
    return found


def publish(folder: Path, name: str, *, revision: str | None = None, token: str | None = None) -> str:
    """Upload a model's folder as one commit into a repository that is there; returns the commit's address.

    Of what a model consists of, files there that aren't in the folder are deleted: older weights would be read.

    Raises:
        InputError: the folder has no model, or the upload failed.
    """
    files = list_files(folder)
    with _told(name):
        api = HfApi(token=token)
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        stale = [each for each in api.list_repo_files(name, revision=revision) if _KNOWN.fullmatch(each)]
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=files,
            delete_patterns=stale,
            revision=revision,
            commit_message="Upload a text + picture classifier",
        )
    return commit.commit_url


def list_files(folder: Path) -> list[str]:
    """Names of the files of a model's folder that are uploaded: plain ones, no links; `InputError` without a model."""
    files = [path.name for path in sorted(folder.iterdir()) if _KNOWN.fullmatch(path.name)] if folder.is_dir() else []
    files = [name for name in files if (folder / name).is_file() and not (folder / name).is_symlink()]
    if "config.json" not in files or not any(name.endswith(".safetensors") for name in files):
        raise InputError(
            f"Got {str(folder)!r}, which has no model in it (config.json and .safetensors as plain files); name a run "
            "of train.py or its model/, or of a cross-validation what evaluate.py RUN --export transformers writes."
        )
    return files


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Whatever the hub or the network answers becomes an `InputError`."""
    try:
        yield
    except Exception as error:
        reason = reason_of(error).rstrip(".")
        raise InputError(
            f"Can't publish {name}: {reason}. Look at the name, the network and the token's rights (hf auth whoami)."
        ) from error


def main(argv: Sequence[str] | None = None) -> None:
    """The command; a mistake of the user's ends with one sentence and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m modeling.publish", description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run folder, or a folder with a model in it")
    parser.add_argument("name", metavar="user/name", help="the repository; it is made unless it is there")
    parser.add_argument("--private", action="store_true", default=None, help="make it a private one")
    parser.add_argument("--revision", metavar="BRANCH", help="another branch than main; it is made unless it is there")
    args = parser.parse_args(argv)
    own = args.folder / "model"
    folder = own if own.is_dir() and not own.is_symlink() else args.folder
    try:
        list_files(folder)
        name = open_repository(args.name, private=args.private)
        print(f"{folder} is published: {publish(folder, name, revision=args.revision)}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
