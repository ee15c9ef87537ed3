import pytest
import torch

from sutura.models.clip import TextTransformer
from sutura.models.text_encoder import MeanOfCausal, TextEncoder, build_text
from sutura.models.weights import transformers_distilbert
from sutura.nn.block import initialise

PAD, END = 0, 9
IDS = torch.tensor([[3, 4, 5, PAD, PAD], [2, 5, 6, 7, 8], [7, PAD, PAD, PAD, PAD]])


def tiny(seed: int = 0) -> TextEncoder:
    tower = TextEncoder(10, 6, 8, 2, 2, pad_id=PAD)
    initialise(tower, torch.Generator().manual_seed(seed))
    return tower


def test_tokens_and_gradients_are_distilberts_with_padding():
    from transformers import DistilBertConfig, DistilBertModel

    torch.manual_seed(0)
    sizes = {"dim": 8, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "vocab_size": 10}
    theirs = DistilBertModel(DistilBertConfig(**sizes, max_position_embeddings=6, pad_token_id=PAD)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    keys = transformers_distilbert(depth=2)
    ours = tiny()
    ours.load_state_dict(keys.ours(theirs.state_dict()))
    mask = IDS != PAD
    expected = theirs(input_ids=IDS, attention_mask=mask.long()).last_hidden_state
    pooled, out = ours(IDS)
    torch.testing.assert_close(out["normed"][mask], expected[mask], atol=1e-5, rtol=0)
    mean = torch.stack([row[kept].mean(dim=0) for row, kept in zip(expected, mask, strict=True)])
    torch.testing.assert_close(pooled, mean, atol=1e-5, rtol=0)
    (mine,) = torch.autograd.grad(pooled.sin().sum(), ours.words.weight)
    (other,) = torch.autograd.grad(mean.sin().sum(), theirs.embeddings.word_embeddings.weight)
    real = torch.arange(10) != PAD  # padding's own row has no gradient there by its padding_idx
    torch.testing.assert_close(mine[real], other[real], atol=1e-5, rtol=1e-5)
    theirs.load_state_dict(keys.theirs(ours.state_dict()), strict=True)
    again = theirs(input_ids=IDS, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(again[mask], expected[mask])


@torch.no_grad()
def test_padding_changes_nothing():
    tower = tiny()
    whole = tower(IDS)[0]
    for row in range(3):
        alone = IDS[row, IDS[row] != PAD][None]
        torch.testing.assert_close(tower(alone)[0][0], whole[row], atol=1e-6, rtol=0)
    before = whole.clone()
    tower.words.weight[PAD] += 5.0
    torch.testing.assert_close(tower(IDS)[0], before)


@torch.no_grad()
def test_every_token_sees_every_other():
    tower = tiny()
    first = tower(torch.tensor([[3, 4, 5]]))[1]["normed"][0, 0]
    assert float((tower(torch.tensor([[3, 4, 6]]))[1]["normed"][0, 0] - first).abs().max()) > 1e-4


@torch.no_grad()
def test_the_mean_of_a_causal_text_stops_at_its_first_end():
    causal = TextTransformer(10, 6, 8, 2, 2, end_id=END)
    initialise(causal, torch.Generator().manual_seed(0))
    mean = MeanOfCausal(causal)
    ids = torch.tensor([[3, 4, END, 0, 0, 0]])
    tokens = causal(ids)[1]["normed"][0]
    torch.testing.assert_close(mean(ids)[0][0], tokens[:3].mean(dim=0))
    torch.testing.assert_close(mean(torch.tensor([[3, 4, END, 7, END, 2]]))[0], mean(ids)[0])
    assert not torch.allclose(mean(ids)[0], causal(ids)[0])


def test_bad_texts_and_kinds_are_refused():
    with pytest.raises(ValueError, match="7 tokens, the tower holds 6"):
        tiny()(torch.ones(1, 7, dtype=torch.long))
    with pytest.raises(ValueError, match=r"1 rows are all padding \(first: row 1\)"):
        tiny()(torch.tensor([[3, 4], [PAD, PAD]]))
    args = {"vocabulary": 10, "length": 6, "width": 8, "depth": 1, "heads": 2}
    assert isinstance(build_text("bidirectional", **args, pad_id=0), TextEncoder)
    assert isinstance(build_text("mean_of_causal", **args, end_id=9), MeanOfCausal)
    with pytest.raises(ValueError, match="kind='bert'"):
        build_text("bert", **args)
    with pytest.raises(ValueError, match="not causal"):
        MeanOfCausal(TextTransformer(**args, end_id=9, causal=False, pooling="last"))
