import math
from dataclasses import fields

import pytest
import torch

from model.net.attention import (
    DeformableAttention,
    QuerySet,
    RelationAttention,
    Rows,
    sample_maps,
    sample_rows,
)
from model.net.geometry import to_centres


def naive_samples(maps, locations, weights):
    """Deformable attention one number at a time, in float64: bilinear by its definition."""
    b, q, heads, _, points, _ = locations.shape
    dim = maps[0].shape[1]
    width = dim // heads
    out = torch.zeros(b, q, dim, dtype=torch.float64)
    for bi in range(b):
        for qi in range(q):
            for hi in range(heads):
                for li, features in enumerate(maps):
                    rows, columns = features.shape[2:]
                    for pi in range(points):
                        x, y = locations[bi, qi, hi, li, pi].tolist()
                        x, y = x * columns - 0.5, y * rows - 0.5
                        for row in (math.floor(y), math.floor(y) + 1):
                            for column in (math.floor(x), math.floor(x) + 1):
                                if 0 <= row < rows and 0 <= column < columns:
                                    share = (1 - abs(y - row)) * (1 - abs(x - column))
                                    value = features[bi, hi * width : (hi + 1) * width, row, column]
                                    out[bi, qi, hi * width : (hi + 1) * width] += (
                                        weights[bi, qi, hi, li, pi] * share * value
                                    )
    return out


def test_sampling_equals_a_naive_loop_in_float64():
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(2, 8, *size, dtype=torch.float64, generator=generator)
        for size in ((5, 7), (3, 4), (1, 2))
    ]
    # Some locations lie outside the map on every side.
    locations = torch.rand(2, 3, 4, 3, 2, 2, dtype=torch.float64, generator=generator) * 1.6 - 0.3
    weights = torch.rand(2, 3, 4, 3, 2, dtype=torch.float64, generator=generator)
    slow = naive_samples(maps, locations, weights)
    rows = [Rows(x.permute(0, 2, 3, 1)) for x in maps]
    for fast in (sample_maps(maps, locations, weights), sample_rows(rows, locations, weights)):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)


def test_deformable_attention_starts_by_looking_inside_the_box():
    attention = DeformableAttention(dim=8, heads=4, levels=1, points=2).double()
    # A map that is 1 inside the box and 0 elsewhere: every sample must read 1.
    features = torch.zeros(1, 8, 32, 32, dtype=torch.float64)
    features[:, :, 8:24, 8:24] = 1
    read = {}
    attention.out.register_forward_hook(lambda module, given, result: read.update(x=given[0]))
    query = torch.zeros(1, 1, 8, dtype=torch.float64)
    attention(query, torch.tensor([[[0.5, 0.5, 0.46, 0.46]]], dtype=torch.float64), [features])
    torch.testing.assert_close(read["x"], torch.ones(1, 1, 8, dtype=torch.float64))


def test_empty_slots_are_seen_by_nobody():
    torch.manual_seed(0)
    attention = RelationAttention(dim=16, heads=4).eval()
    content, position = torch.randn(1, 6, 16), torch.randn(1, 6, 16)
    boxes, scores = torch.rand(1, 6, 4), torch.rand(1, 6)
    live = torch.tensor([[True, True, False, True, False, True]])
    is_track = torch.tensor([[True, True, True, False, False, False]])

    def read(content, boxes):
        party = QuerySet(content, position, boxes, scores, is_track, live)
        return attention(party, party)[live]

    other, elsewhere = content.clone(), boxes.clone()
    other[:, ~live[0]] += 5
    elsewhere[:, ~live[0]] = 0.9
    torch.testing.assert_close(read(content, boxes), read(other, elsewhere))


def test_relation_attention_follows_a_permutation_of_queries():
    torch.manual_seed(1)
    attention = RelationAttention(dim=16, heads=4).eval()
    content, position = torch.randn(1, 5, 16), torch.randn(1, 5, 16)
    boxes = to_centres(torch.rand(1, 5, 2).repeat(1, 1, 2) + torch.tensor([0, 0, 0.2, 0.3]))
    scores = torch.rand(1, 5)
    is_track, live = torch.arange(5)[None] < 2, torch.ones(1, 5, dtype=torch.bool)
    order = torch.tensor([3, 1, 4, 0, 2])
    parts = (content, position, boxes, scores, is_track, live)
    party, shuffled = QuerySet(*parts), QuerySet(*(x[:, order] for x in parts))
    plain, moved = attention(party, party), attention(shuffled, shuffled)
    torch.testing.assert_close(plain[:, order], moved, rtol=1e-4, atol=1e-5)


def test_two_parties_joined_answer_like_one():
    torch.manual_seed(2)
    attention = RelationAttention(dim=16, heads=4).eval()
    boxes = torch.rand(1, 5, 4)
    parts = (torch.randn(1, 5, 16), torch.randn(1, 5, 16), boxes, torch.rand(1, 5))
    everyone = QuerySet(*parts, torch.arange(5)[None] < 2, torch.ones(1, 5, dtype=torch.bool))
    first, rest = (
        QuerySet(*(getattr(everyone, f.name)[:, part] for f in fields(QuerySet)))
        for part in (slice(0, 2), slice(2, 5))
    )
    whole = attention(everyone, everyone)
    torch.testing.assert_close(attention(first, first.joined(rest)), whole[:, :2])


def test_a_map_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(RuntimeError):
        sample_maps(
            [torch.zeros(1, 6, 4, 4)], torch.zeros(1, 1, 4, 1, 1, 2), torch.zeros(1, 1, 4, 1, 1)
        )
