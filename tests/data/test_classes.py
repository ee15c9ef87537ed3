import numpy as np
import pytest

from sutura.core.errors import UserError
from sutura.data.classes import encode_labels


def test_numbers_stay_and_names_are_numbered_in_order():
    labels, names = encode_labels([2, 0, 1, 2])
    assert labels.tolist() == [2, 0, 1, 2]
    assert names == ("0", "1", "2")
    labels, names = encode_labels(["dog", "cat", "dog"])
    assert labels.tolist() == [1, 0, 1]
    assert names == ("cat", "dog")
    labels, names = encode_labels([1, 0], names=("cat", "dog", "owl"))
    assert labels.tolist() == [1, 0]
    assert names == ("cat", "dog", "owl")
    assert encode_labels(["owl", "cat"], names=("cat", "dog", "owl"))[0].tolist() == [2, 0]


def test_lists_of_labels_become_rows_of_yes_and_no():
    table, names = encode_labels([["red", "cube"], [], ["red"]])
    assert names == ("cube", "red")
    assert np.array_equal(table, [[1, 1], [0, 0], [0, 1]])
    assert table.dtype == np.float32


@pytest.mark.parametrize(
    ("raw", "options", "message"),
    [
        ([0, 1, -1], {}, "Label -1 is out of range.*kept secret"),
        ([0, 1, 10], {"classes": 10}, "Label 10 is out of range: 10 classes are numbered 0 to 9"),
        ([0, 1, 3], {"names": ("a", "b", "c")}, "Label 3 is out of range: 3 classes"),
        ([0, 1, 2, 999], {}, "Label 999 is far out of range of the 4 classes"),
        (["a", "d"], {"names": ("a", "b", "c")}, "Label 'd' is none of the 3 known"),
        ([0, "a"], {}, "numbers for some pictures and names for others"),
        ([4, 4, 4], {"classes": 10}, r"All 3 pictures carry the same label \(4\)"),
        (["a", "a"], {}, r"same label \(a\)"),
        ([[0], [0]], {}, "same label"),
        (["a", "b", "c"], {"classes": 2}, "3 different labels, and 2 classes"),
        ([f"a text {i}" for i in range(30)], {}, "that is text, not classes"),
        ([], {}, "No picture carries a label"),
    ],
)
def test_labels_that_cannot_be_right_are_refused(raw, options, message):
    with pytest.raises(UserError, match=message):
        encode_labels(raw, **options)


def test_a_rare_class_of_many_that_were_announced_is_no_fault():
    assert encode_labels([0, 999], classes=1000)[0].tolist() == [0, 999]
