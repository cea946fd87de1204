"""Pairs of the project's own generator, for the tests that launch programs on them."""

import pytest

from data_utils.sample import main as draw_sample


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """44 pairs, of which 33 are for training, and 5 to predict; beside them train_flags has a cache."""
    folder = tmp_path_factory.mktemp("sample")
    draw_sample(["--output_dir", str(folder / "pairs"), "--num_pairs", "44", "--num_test", "5"])
    return folder / "pairs"
