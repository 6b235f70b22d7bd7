"""What the other tests compare with tells bits apart."""

import pytest
import torch
from compare import same, same_bits
from conformance.comparing import Different
from conformance.comparing import same as conformance_same

UNEQUAL = {
    "zeros": (torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0])),
    "complex zeros": (torch.tensor([complex(0.0, 0.0)]), torch.tensor([complex(0.0, -0.0)])),
    "half zeros": (torch.tensor([0.0], dtype=torch.float16), torch.tensor([-0.0], dtype=torch.float16)),
    "last bit": (torch.tensor([1.0]), torch.tensor([1.0]).nextafter(torch.tensor([2.0]))),
}


@pytest.mark.parametrize("name", UNEQUAL)
def test_a_bit_is_a_difference(name):
    here, there = UNEQUAL[name]
    same_bits(here, here.clone())
    with pytest.raises(AssertionError):
        same_bits(here, there)
    with pytest.raises(Different):
        conformance_same([here], [there])


def test_numbers():
    same([0.0, float("nan"), 1], [0.0, float("nan"), 1])
    for here, there in ((0.0, -0.0), (complex(0, 0.0), complex(0, -0.0)), (1, 2)):
        with pytest.raises(AssertionError):
            same([here], [there])
        with pytest.raises(Different):
            conformance_same([here], [there])


def test_nan_is_nan():
    """Goal: which NaN it is does not matter: kernels make several."""
    other = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)
    same_bits(torch.tensor([float("nan")]), other)
