"""The last layers of a causal language model as a trunk in which every token sees every token, and texts as vectors."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.models.vljepa_answer import mean_of_real
from sutura.stitch.pack import additive

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Families whose decoder is embeddings → layers → norm and nothing else, so that layers may be left out.
FAMILIES = ("llama", "qwen2", "qwen3")


class LastLayers(nn.Module):
    """Embeddings through the last layers and the final norm of a causal language model, its causal mask off.

    Args:
        lm: as `load_language_model` gives it; its layers are copied, in float32, and ask for gradients.
        count: layers, counted from the last.

    Raises:
        UserError: another family of models, or more layers than there are.

    Source: Chen et al. 2025, arXiv:2512.10942: the predictor is the last 8 of 16 layers, with the
        causal mask off so that vision and query attend to each other.
    """

    def __init__(self, lm: PreTrainedModel, count: int) -> None:
        super().__init__()
        whole: Any = lm
        kind = whole.config.model_type
        if kind not in FAMILIES:
            raise UserError(
                f"A predictor is cut from the layers of {', '.join(FAMILIES)} models; this one is {kind!r}, whose "
                "decoder does more than run its layers. Give trunk.id one of those families."
            )
        depth = len(whole.model.layers)
        if not 1 <= count <= depth:
            raise UserError(f"trunk.layers={count}: the language model has 1 to {depth} layers to take.")
        self.eager = whole.config._attn_implementation == "eager"
        base = copy.copy(
            whole.model
        )  # its own list of parts, so that the language model keeps all of its own
        base._modules = dict(whole.model._modules)
        base.config = copy.deepcopy(whole.config)
        base.config.num_hidden_layers = count
        if getattr(base.config, "layer_types", None) is not None:
            base.config.layer_types = list(base.config.layer_types)[-count:]
        if any(kind != "full_attention" for kind in getattr(base.config, "layer_types", None) or ()):
            raise UserError(
                "A layer with a sliding window does not see every token; choose another trunk.id."
            )
        base._modules["embed_tokens"] = nn.Identity()  # rows come embedded
        base._modules["layers"] = nn.ModuleList(whole.model.layers[-count:])
        self.base: Any = copy.deepcopy(base).float().requires_grad_(True)
        self.width: int = base.config.hidden_size

    def forward(
        self, tokens: Float[Tensor, "batch length width"], real: Bool[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length width"]:
        """Hidden states behind the final norm.

        Args:
            tokens: embeddings.
            real: which are no padding; padding is seen by nobody, and what comes out at its places means nothing.
        """
        length = tokens.shape[1]
        itself = torch.eye(length, dtype=torch.bool, device=tokens.device)  # no softmax over nothing
        mask = (real[:, None, None, :] | itself).expand(len(tokens), 1, length, length)
        output = self.base(
            inputs_embeds=tokens,
            attention_mask=additive(mask, tokens.dtype) if self.eager else mask,
            position_ids=torch.arange(length, device=tokens.device).expand(len(tokens), length),
            use_cache=False,
        )
        return output.last_hidden_state

    @torch.no_grad()
    def redraw(self, generator: torch.Generator) -> None:
        """Forget what the language model learned: matrices Xavier-uniform, biases zero, norms one."""
        for parameter in self.base.parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter, generator=generator)
        for part in self.base.modules():
            if isinstance(part, nn.Linear) and part.bias is not None:
                part.bias.zero_()
            elif not isinstance(part, nn.Linear):
                for parameter in part.parameters(recurse=False):
                    parameter.fill_(1.0)


class TextVectors(nn.Module):
    """Texts as vectors: a transformers model, and the mean over its tokens that are no padding.

    Args:
        model: ids → hidden states; whether tokens see later ones is its own affair.
        width: of those hidden states.

    Source: Vera et al. 2025, arXiv:2509.20354 (EmbeddingGemma): mean pooling.
    Differs: EmbeddingGemma's two dense layers behind the mean are left out; the text head stands in their place.
    """

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model: Any = model
        self.width = width

    def forward(
        self, ids: Int[Tensor, "texts length"], real: Bool[Tensor, "texts length"]
    ) -> Float[Tensor, "texts width"]:
        """One vector a text; answers of a word are not padded to the length of a description beside them."""
        lengths = real.sum(dim=1)
        longest = int(lengths.max())
        short = lengths * 4 <= longest
        if not bool(short.any()):
            return self._mean(ids[:, :longest], real[:, :longest])
        cut = int(lengths[short].max())
        parts = [
            self._mean(ids[short, :cut], real[short, :cut]),
            self._mean(ids[~short, :longest], real[~short, :longest]),
        ]
        order = torch.cat([short.nonzero()[:, 0], (~short).nonzero()[:, 0]])
        return torch.cat(parts)[order.argsort()]

    def _mean(
        self, ids: Int[Tensor, "texts length"], real: Bool[Tensor, "texts length"]
    ) -> Float[Tensor, "texts width"]:
        hidden = self.model(input_ids=ids, attention_mask=real.long()).last_hidden_state  # T L D
        return mean_of_real(hidden, real)


def load_text_vectors(place: str, named: str, *, trust_remote_code: bool = False) -> tuple[TextVectors, Any]:
    """A text encoder of transformers, in float32 and trainable, with its tokenizer.

    Args:
        place: a folder.
        named: what messages call it.
        trust_remote_code: whether code in the folder may run.

    Raises:
        UserError: no such model, or weights that are not whole.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    from sutura.stitch.config import LlmConfig
    from sutura.stitch.language import load_tokenizer

    logging.disable_progress_bar()
    try:
        model, info = AutoModel.from_pretrained(
            place,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"Text encoder {named!r} could not be loaded: {str(error).splitlines()[0]}") from None
    missing = sorted(info["missing_keys"])
    if missing or info["mismatched_keys"]:
        raise UserError(
            f"{len(missing) + len(info['mismatched_keys'])} weights of text encoder {named!r} are missing or have "
            f"another shape ({', '.join(missing[:4])}); they would be random."
        )
    tokenizer = load_tokenizer(LlmConfig(id=place, trust_remote_code=trust_remote_code))
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"The tokenizer of text encoder {named!r} has no padding token; set pad_token and save it."
        )
    return TextVectors(model.requires_grad_(True), model.config.hidden_size), tokenizer
