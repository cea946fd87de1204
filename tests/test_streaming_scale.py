"""Memory and start of a streamed training don't grow with the rows."""

import pytest

from benchmarks.scale import measure_sizes, write_synthetic_shards
from benchmarks.stream_rate import measure as measure_rates


@pytest.mark.slow
def test_twenty_times_the_rows_take_no_more_memory():
    found = measure_sizes((1_000, 20_000), steps=60, repeats=1)
    assert found["ratios"]["peak"] < 1.1
    assert found["ratios"]["peak_anonymous"] < 1.1


def test_rates_count_every_row(tmp_path):
    write_synthetic_shards(tmp_path, 200)
    found = measure_rates(str(tmp_path), repeats=1)
    assert found["rows"] == 200
    assert found["bytes_per_row"] > found["content_bytes_per_row"] > 500
    assert found["rows_per_second"]["read"] > found["rows_per_second"]["batches"] > 0
