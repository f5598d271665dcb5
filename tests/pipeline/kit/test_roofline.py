"""What a call does, what that takes at least, and how long a GPU was busy."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kit.gpu_rates import covered
from pipeline.kit.roofline import Peaks, measured_peaks, work_of


def test_flops_and_bytes_of_a_product_are_those_of_the_formula():
    a, b = torch.randn(8, 16), torch.randn(16, 4)
    work = work_of(lambda: (a.view(16, 8).t() @ b.t().t()[:16]).relu())
    product, relu = 2 * 8 * 16 * 4, 0
    assert [flops for _, flops, _ in work.operations] == [product, relu]
    assert work.bytes == 4 * ((8 * 16 + 16 * 4 + 8 * 4) + 2 * 8 * 4)
    assert dict(work.flops) == {"float32": product}


def test_the_greater_of_both_bounds_counts_for_each_operation():
    a = torch.randn(64, 64).to(torch.bfloat16)
    work = work_of(lambda: (a @ a, a + a))
    product, moved = 2 * 64**3, 3 * 2 * 64**2
    slow_math = Peaks({"float32": 1.0, "bfloat16": 1e3}, 1e12)
    assert work.least_seconds(slow_math) == pytest.approx(product / 1e3 + moved / 1e12)
    slow_copy = Peaks({"float32": 1.0, "bfloat16": 1e15}, 1e3)
    assert work.least_seconds(slow_copy) == pytest.approx(2 * moved / 1e3)


def test_peaks_are_measured():
    peaks = measured_peaks(torch.device("cpu"), tf32=False)
    assert set(peaks.flops) == {"float32", "bfloat16"}
    assert min(peaks.bytes, *peaks.flops.values()) > 1e6


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=8))
def test_time_covered_by_spans_counts_once(spans):
    marks = {t for start, length in spans for t in range(start, start + length)}
    assert covered([(start, start + length) for start, length in spans]) == len(marks)
