"""The rows of the catalog: one a checkpoint, and for every fact in it how it was checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Loader = Literal["transformers", "timm", "open_clip", "zoo"]

#: What a row claims of the module; read from the module and compared whenever the encoder is loaded.
MEASURED = ("image_size", "patch_size", "width", "depth", "num_prefix_tokens", "tokens")
#: What a row claims of the checkpoint's origin.
TOLD = ("objective", "data", "licence", "paper")

# How a fact can have been checked; each is verified by a test against the installed library.
CONFIG, MODULE, JSON = "timm config", "timm module", "open_clip json"
_SHAPE = {key: MODULE for key in MEASURED if key != "image_size"}
_FULL = {"image_size": CONFIG, **_SHAPE}


@dataclass(frozen=True)
class Row:
    """One checkpoint.

    Args:
        id: its exact name on the Hub; `open_clip:NAME/TAG` where open_clip's own table names it.
        loader: whose format it is in.
        image_size: side of the pictures its own transform makes.
        patch_size: side of a patch.
        width: of a patch's features.
        depth: blocks.
        num_prefix_tokens: CLS, registers and the like.
        objective: what it was pre-trained for.
        data: what it was pre-trained on.
        licence: of the weights.
        paper: arXiv number.
        timm_name: the same weights (or, in `notes`, the same architecture) in timm's table.
        open_clip_name: the same weights in open_clip's table, "NAME/TAG".
        checked: fact → how it was checked; a fact that is not here is shown as unchecked.
        architecture: the library's class (transformers) or name (timm) for it; a checkpoint of another one is refused.
        notes: what one has to know.
    """

    id: str
    loader: Loader
    image_size: int
    patch_size: int
    width: int
    depth: int
    num_prefix_tokens: int
    objective: str
    data: str
    licence: str
    paper: str
    timm_name: str | None = None
    open_clip_name: str | None = None
    checked: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""
    architecture: str = ""

    @property
    def tokens(self) -> int:
        """Patches at its own picture size."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def repo(self) -> str:
        """Where it lies on the Hub; "" for the zoo."""
        return self.id if self.loader in ("transformers", "timm") else ""

    @property
    def unchecked(self) -> list[str]:
        """Facts that nobody has checked."""
        return [key for key in (*MEASURED, *TOLD) if key not in self.checked and getattr(self, key)]

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return "-nc" in self.licence.lower()

    def about(self) -> dict[str, Any]:
        """What the row adds to an encoder's facts."""
        return {
            **{key: getattr(self, key) or None for key in TOLD},
            "non_commercial": self.non_commercial,
            "notes": self.notes,
        }


_CLIP = "image–text contrastive (softmax)"
_WIT = "WIT-400M (not released)"

ROWS: tuple[Row, ...] = (
    Row(
        id="openai/clip-vit-base-patch32",
        loader="transformers",
        architecture="CLIPVisionModel",
        image_size=224,
        patch_size=32,
        width=768,
        depth=12,
        num_prefix_tokens=1,
        objective=_CLIP,
        data=_WIT,
        licence="MIT",
        paper="2103.00020",
        timm_name="vit_base_patch32_clip_224.openai",
        open_clip_name="ViT-B-32-quickgelu/openai",
        checked={**_FULL, "image_size": JSON},
        notes="QuickGELU; timm's copy says Apache-2.0",
    ),
    Row(
        id="openai/clip-vit-base-patch16",
        loader="transformers",
        architecture="CLIPVisionModel",
        image_size=224,
        patch_size=16,
        width=768,
        depth=12,
        num_prefix_tokens=1,
        objective=_CLIP,
        data=_WIT,
        licence="MIT",
        paper="2103.00020",
        timm_name="vit_base_patch16_clip_224.openai",
        open_clip_name="ViT-B-16-quickgelu/openai",
        checked={**_FULL, "image_size": JSON},
        notes="QuickGELU; timm's copy says Apache-2.0",
    ),
    Row(
        id="openai/clip-vit-large-patch14",
        loader="transformers",
        architecture="CLIPVisionModel",
        image_size=224,
        patch_size=14,
        width=1024,
        depth=24,
        num_prefix_tokens=1,
        objective=_CLIP,
        data=_WIT,
        licence="MIT",
        paper="2103.00020",
        timm_name="vit_large_patch14_clip_224.openai",
        open_clip_name="ViT-L-14-quickgelu/openai",
        checked={**_FULL, "image_size": JSON},
        notes="QuickGELU; timm's copy says Apache-2.0",
    ),
    Row(
        id="google/vit-base-patch16-224",
        loader="transformers",
        architecture="ViTModel",
        image_size=224,
        patch_size=16,
        width=768,
        depth=12,
        num_prefix_tokens=1,
        objective="classification (supervised)",
        data="ImageNet-21k, then ImageNet-1k",
        licence="Apache-2.0",
        paper="2010.11929",
        timm_name="vit_base_patch16_224.augreg_in21k_ft_in1k",
        checked=_FULL,
        notes="timm_name is the same architecture with later weights",
    ),
    Row(
        id="google/vit-large-patch16-224",
        loader="transformers",
        architecture="ViTModel",
        image_size=224,
        patch_size=16,
        width=1024,
        depth=24,
        num_prefix_tokens=1,
        objective="classification (supervised)",
        data="ImageNet-21k, then ImageNet-1k",
        licence="Apache-2.0",
        paper="2010.11929",
        timm_name="vit_large_patch16_224.augreg_in21k_ft_in1k",
        checked=_FULL,
        notes="timm_name is the same architecture with later weights",
    ),
    Row(
        id="facebook/dino-vitb16",
        loader="transformers",
        architecture="ViTModel",
        image_size=224,
        patch_size=16,
        width=768,
        depth=12,
        num_prefix_tokens=1,
        objective="self-distillation (DINO)",
        data="ImageNet-1k, no labels",
        licence="Apache-2.0",
        paper="2104.14294",
        timm_name="vit_base_patch16_224.dino",
        checked=_FULL,
    ),
    Row(
        id="facebook/ijepa_vith14_1k",
        loader="transformers",
        architecture="IJepaModel",
        image_size=224,
        patch_size=14,
        width=1280,
        depth=32,
        num_prefix_tokens=0,
        objective="latent prediction (I-JEPA)",
        data="ImageNet-1k, no labels",
        licence="CC-BY-NC-4.0",
        paper="2301.08243",
        timm_name="vit_huge_patch14_gap_224.in1k_ijepa",
        checked={**_FULL, "licence": CONFIG},
        notes="non-commercial licence",
    ),
    Row(
        id="google/siglip-base-patch16-224",
        loader="transformers",
        architecture="SiglipVisionModel",
        image_size=224,
        patch_size=16,
        width=768,
        depth=12,
        num_prefix_tokens=0,
        objective="image–text contrastive (sigmoid)",
        data="WebLI (not released)",
        licence="Apache-2.0",
        paper="2303.15343",
        timm_name="vit_base_patch16_siglip_224.webli",
        open_clip_name="ViT-B-16-SigLIP/webli",
        checked={**_FULL, "licence": CONFIG},
    ),
    Row(
        id="google/siglip-so400m-patch14-384",
        loader="transformers",
        architecture="SiglipVisionModel",
        image_size=384,
        patch_size=14,
        width=1152,
        depth=27,
        num_prefix_tokens=0,
        objective="image–text contrastive (sigmoid)",
        data="WebLI (not released)",
        licence="Apache-2.0",
        paper="2303.15343",
        timm_name="vit_so400m_patch14_siglip_384.webli",
        open_clip_name="ViT-SO400M-14-SigLIP-384/webli",
        checked={**_FULL, "licence": CONFIG},
    ),
    Row(
        id="google/siglip2-base-patch16-224",
        loader="transformers",
        architecture="SiglipVisionModel",
        image_size=224,
        patch_size=16,
        width=768,
        depth=12,
        num_prefix_tokens=0,
        objective="sigmoid contrastive, captioning, self-distillation, masked prediction",
        data="WebLI (not released)",
        licence="Apache-2.0",
        paper="2502.14786",
        timm_name="vit_base_patch16_siglip_224.v2_webli",
        open_clip_name="ViT-B-16-SigLIP2/webli",
        checked={**_FULL, "licence": CONFIG},
        notes="transformers reads the fixed-resolution form as SigLIP",
    ),
    Row(
        id="facebook/dinov2-large",
        loader="transformers",
        architecture="Dinov2Model",
        image_size=224,
        patch_size=14,
        width=1024,
        depth=24,
        num_prefix_tokens=1,
        objective="self-distillation (DINO and iBOT)",
        data="LVD-142M (not released)",
        licence="Apache-2.0",
        paper="2304.07193",
        timm_name="vit_large_patch14_dinov2.lvd142m",
        checked={**_SHAPE, "licence": CONFIG},
        notes="positions made for 518 pixels; its transform makes 224",
    ),
    Row(
        id="facebook/dinov2-with-registers-large",
        loader="transformers",
        architecture="Dinov2WithRegistersModel",
        image_size=224,
        patch_size=14,
        width=1024,
        depth=24,
        num_prefix_tokens=5,
        objective="self-distillation (DINO and iBOT)",
        data="LVD-142M (not released)",
        licence="Apache-2.0",
        paper="2309.16588",
        timm_name="vit_large_patch14_reg4_dinov2.lvd142m",
        checked={**_SHAPE, "licence": CONFIG},
        notes="CLS and 4 registers; positions made for 518 pixels; its transform makes 224",
    ),
    Row(
        id="facebook/dinov3-vitl16-pretrain-lvd1689m",
        loader="transformers",
        architecture="DINOv3ViTModel",
        image_size=224,
        patch_size=16,
        width=1024,
        depth=24,
        num_prefix_tokens=5,
        objective="self-distillation (DINO and iBOT, Gram anchoring)",
        data="LVD-1689M (not released)",
        licence="DINOv3-License",
        paper="2508.10104",
        timm_name="vit_large_patch16_dinov3.lvd1689m",
        checked={**_SHAPE, "licence": CONFIG},
        notes="gated; CLS and 4 registers; rotary positions",
    ),
    Row(
        id="timm/eva02_large_patch14_224.mim_m38m",
        loader="timm",
        architecture="eva02_large_patch14_224",
        image_size=224,
        patch_size=14,
        width=1024,
        depth=24,
        num_prefix_tokens=1,
        objective="masked prediction of EVA-CLIP features",
        data="Merged-38M",
        licence="MIT",
        paper="2303.11331",
        timm_name="eva02_large_patch14_224.mim_m38m",
        checked={**_FULL, "licence": CONFIG},
    ),
    Row(
        id="timm/eva02_large_patch14_448.mim_m38m_ft_in22k_in1k",
        loader="timm",
        architecture="eva02_large_patch14_448",
        image_size=448,
        patch_size=14,
        width=1024,
        depth=24,
        num_prefix_tokens=1,
        objective="masked prediction of EVA-CLIP features, then classification",
        data="Merged-38M, then ImageNet-22k and 1k",
        licence="MIT",
        paper="2303.11331",
        timm_name="eva02_large_patch14_448.mim_m38m_ft_in22k_in1k",
        checked={**_FULL, "licence": CONFIG},
    ),
    Row(
        id="open_clip:EVA02-L-14/merged2b_s4b_b131k",
        loader="open_clip",
        image_size=224,
        patch_size=14,
        width=1024,
        depth=24,
        num_prefix_tokens=1,
        objective=_CLIP,
        data="Merged-2B",
        licence="MIT",
        paper="2303.15389",
        timm_name="eva02_large_patch14_clip_224.merged2b",
        open_clip_name="EVA02-L-14/merged2b_s4b_b131k",
        checked={**_FULL, "image_size": JSON, "licence": CONFIG},
        notes="EVA-02 trunk trained as a CLIP",
    ),
    Row(
        id="facebook/vjepa2-vitl-fpc64-256",
        loader="transformers",
        architecture="VJEPA2Model",
        image_size=256,
        patch_size=16,
        width=1024,
        depth=24,
        num_prefix_tokens=0,
        objective="latent prediction on video (V-JEPA 2)",
        data="VideoMix22M, no labels",
        licence="MIT",
        paper="2506.09985",
        checked=dict.fromkeys(MEASURED, "transformers config"),
        notes="a still picture is repeated as the frames of one tubelet; licences differ in this family",
    ),
)
