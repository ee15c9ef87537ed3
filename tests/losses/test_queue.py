import pytest
import torch

from sutura.losses.queue import NegativeQueue


def test_the_oldest_leave_first_and_pictures_of_the_batch_are_marked():
    queue = NegativeQueue(5, 2)
    assert queue.negatives(torch.tensor([0, 1])) is None
    for start in (0, 2, 4):
        rows = torch.arange(start, start + 2).float()
        queue.push(rows[:, None].expand(2, 2), -rows[:, None].expand(2, 2), torch.arange(start, start + 2))
    assert len(queue) == 5
    held = queue.negatives(torch.tensor([3, 9]))
    assert sorted(held.images[:, 0].tolist()) == [1, 2, 3, 4, 5]
    torch.testing.assert_close(held.texts, -held.images)
    assert held.same.sum(dim=1).tolist() == [1, 0]
    assert held.images[held.same[0]].flatten().tolist() == [3.0, 3.0]


def test_a_batch_larger_than_the_queue_leaves_its_last_pairs():
    queue = NegativeQueue(3, 1)
    rows = torch.arange(7.0)[:, None]
    queue.push(rows, rows, torch.arange(7))
    assert sorted(queue.negatives(torch.tensor([99])).images.flatten().tolist()) == [4.0, 5.0, 6.0]


def test_a_checkpoint_holds_the_queue_and_no_gradient_enters_it():
    queue, other = NegativeQueue(4, 2), NegativeQueue(4, 2)
    keys = torch.randn(3, 2, requires_grad=True)
    queue.push(keys, keys * 2, torch.arange(3))
    assert not queue.images.requires_grad
    other.load_state_dict(queue.state_dict())
    assert len(other) == 3
    torch.testing.assert_close(other.negatives(torch.tensor([5])), queue.negatives(torch.tensor([5])))
    with pytest.raises(ValueError, match="at least one pair"):
        NegativeQueue(0, 2)
