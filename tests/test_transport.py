import torch

from model.proposals import Proposals
from model.transport import Transport


def proposals(*rows):
    """Boxes in centre form with their logits."""
    boxes = torch.tensor([[row[:4] for row in rows]])
    return Proposals(torch.zeros(1, len(rows), 8), boxes, torch.tensor([[[r[4]] for r in rows]]))


def carried(box, *rows, logit=1.0):
    boxes, logits = Transport(8)(
        torch.zeros(1, 1, 8), torch.tensor([[box]]), torch.tensor([[[logit]]]), proposals(*rows)
    )
    return boxes[0, 0], float(logits)


def test_a_track_moves_to_where_its_person_is_now():
    here, moved = [0.5, 0.5, 0.1, 0.3], [0.51, 0.5, 0.1, 0.3, 2.0]
    boxes, logit = carried(here, moved, [0.8, 0.5, 0.1, 0.3, 3.0])
    torch.testing.assert_close(boxes, torch.tensor(moved[:4]), atol=0.003, rtol=0)
    assert 1.8 < logit < 2.2


def test_a_track_with_nobody_near_stays_and_fades():
    here = [0.2, 0.5, 0.1, 0.3]
    boxes, logit = carried(here, [0.8, 0.5, 0.1, 0.3, -1.0])
    torch.testing.assert_close(boxes, torch.tensor(here), atol=0.02, rtol=0)
    assert logit < 0.2


def test_neither_order_nor_far_proposals_matter():
    here, near = [0.5, 0.5, 0.1, 0.3], [0.52, 0.5, 0.1, 0.3, 1.0]
    far = [0.9, 0.5, 0.1, 0.3, -3.0]
    one, _ = carried(here, near, far)
    other, _ = carried(here, far, near)
    torch.testing.assert_close(one, other)
