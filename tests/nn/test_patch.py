import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sutura.nn.patch import PatchEmbed, patchify, unpatchify
from sutura.nn.pool import end_pool, first_pool, mean_pool


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 4), columns=st.integers(1, 4), patch=st.integers(1, 4), channels=st.integers(1, 3))
def test_unpatchify_undoes_patchify(rows, columns, patch, channels):
    pixels = torch.arange(2 * channels * rows * columns * patch * patch, dtype=torch.float32)
    pixels = pixels.view(2, channels, rows * patch, columns * patch)
    patches = patchify(pixels, patch)
    assert patches.shape == (2, rows * columns, channels * patch**2)
    assert torch.equal(unpatchify(patches, patch, (rows, columns)), pixels)


def test_patches_run_row_by_row():
    pixels = torch.arange(16.0).view(1, 1, 4, 4)
    assert patchify(pixels, 2)[0, 1].tolist() == [2, 3, 6, 7]


def test_the_patch_embedding_is_the_convolution_of_the_libraries():
    torch.manual_seed(0)
    ours, theirs = PatchEmbed(4, 6), nn.Conv2d(3, 6, 4, stride=4)
    with torch.no_grad():
        ours.project.weight.copy_(theirs.weight.flatten(1))
        ours.project.bias.copy_(theirs.bias)
    pixels = torch.randn(2, 3, 8, 12)
    torch.testing.assert_close(ours(pixels), theirs(pixels).flatten(2).transpose(1, 2), atol=1e-5, rtol=0)


def test_a_picture_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="9×8 cannot be cut into patches of 4"):
        patchify(torch.zeros(1, 3, 9, 8), 4)


def test_pools():
    """Fault: CLS dropped by a fixed index; texts mean-pooled over a causal transformer."""
    tokens = torch.arange(12.0).view(1, 4, 3)
    assert torch.equal(first_pool(tokens), tokens[:, 0])
    assert torch.equal(mean_pool(tokens, 2), (tokens[:, 2] + tokens[:, 3]) / 2)
    ids = torch.tensor([[5, 1, 1, 0]])
    assert torch.equal(end_pool(tokens, ids, end_id=1), tokens[:, 1])
    with pytest.raises(ValueError, match="No end-of-text id 7 in 1 rows"):
        end_pool(tokens, ids, end_id=7)
