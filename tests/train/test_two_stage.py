import pytest
import torch

from sutura.core.errors import UserError
from sutura.models.clip import CLIP, TextTransformer
from sutura.models.eva import EVA
from sutura.models.vit import ViT
from sutura.models.zoo_format import load_zoo_vit, save_zoo_vit
from sutura.train.two_stage import Teacher, TwoStage, check_teacher, load_teacher

ARGS = {"image_size": 16, "patch_size": 4, "width": 12, "depth": 1, "heads": 3}
OURS, THEIRS = ((0.7, 0.6, 0.5), (0.1, 0.2, 0.3)), ((0.5, 0.4, 0.3), (0.25, 0.2, 0.15))


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_zoo_vit(
        tmp_path / "teacher",
        ViT(**ARGS),
        args=ARGS,
        transform={"image_size": 16, "mean": list(THEIRS[0]), "std": list(THEIRS[1])},
        about={"passes": 77, "operations": 5.0},
        card="",
    )
    return tmp_path / "teacher"


def normalised(colours, mean, std):
    return (colours - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def test_a_teacher_sees_the_colours_it_was_trained_on(folder):
    """Fault: wrong normalisation constants for an encoder."""
    colours = torch.rand(2, 3, 16, 16)
    teacher = Teacher(folder, *OURS)
    said = teacher(normalised(colours, *OURS))
    vit, _ = load_zoo_vit(folder)
    torch.testing.assert_close(said, vit(normalised(colours, *THEIRS))[1]["normed"], rtol=1e-4, atol=1e-5)
    assert not said.requires_grad
    assert (teacher.passes, teacher.operations) == (77, 5.0)


def test_a_teacher_of_other_patches_is_refused(folder):
    load_teacher(str(folder), ViT(16, 4, 20, 2, 2), *OURS)  # another width and depth are fine
    with pytest.raises(UserError, match="in patches of 4, the encoder pictures of 16 in patches of 8"):
        load_teacher(str(folder), ViT(16, 8, 12, 1, 3), *OURS)
    with pytest.raises(
        UserError, match=r"no teacher at 'zoo:nobody'\. Train it first: sutura zoo build nobody"
    ):
        check_teacher("zoo:nobody", 16, 4)
    with pytest.raises(UserError, match="Give a zoo folder"):
        check_teacher(str(folder / "deeper"), 16, 4)


def test_both_stages_train_one_encoder():
    a, b = ViT(**ARGS), ViT(**ARGS)
    text = TextTransformer(6, 3, 8, 1, 2, 5)
    with pytest.raises(ValueError, match="same encoder"):
        TwoStage(EVA(a, 12), CLIP(b, text, 8), 3)
    model = TwoStage(EVA(a, 12), CLIP(a, text, 8), 3)
    names = [name for name, _ in model.named_parameters()]
    assert sum(name.endswith("embed.project.weight") for name in names) == 1
