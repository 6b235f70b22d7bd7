"""scaled_dot_product_attention: CUDA's choice of a form, and fused forms that equal the CPU's to the bit."""

import warnings

import pytest
import torch
import torch.nn.functional as F
import waldo
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel

FLASH, EFFICIENT = "ScaledDotProductFlashAttentionBackward0", "ScaledDotProductEfficientAttentionBackward0"


def leaves(dtype, rows=7, columns=9, width=16, heads=4, key_heads=4):
    shapes = [(2, heads, rows, width), (2, key_heads, columns, width), (2, key_heads, columns, width)]
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


def attend(tensors, device, mask=None, **options):
    """The output and its gradients, on the CPU; and the name of the form."""
    leaves = [tensor.to(device).requires_grad_() for tensor in tensors]
    out = F.scaled_dot_product_attention(*leaves, None if mask is None else mask.to(device), **options)
    (out * torch.arange(out.numel(), device=device).reshape(out.shape).to(out.dtype).cos()).sum().backward()
    return [out.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves)], out.grad_fn.name(), out


@pytest.mark.parametrize(
    ("dtype", "form", "sizes", "options"),
    [
        (torch.float32, EFFICIENT, {}, {}),
        (torch.float32, EFFICIENT, {}, {"is_causal": True, "scale": 0.3}),
        (torch.float32, EFFICIENT, {"rows": 33, "columns": 65, "width": 64}, {}),
        (torch.float16, FLASH, {}, {}),
        (torch.bfloat16, FLASH, {"columns": 7}, {"is_causal": True}),
        (torch.bfloat16, EFFICIENT, {}, {"is_causal": True}),  # not as many rows as columns
        (torch.bfloat16, FLASH, {"key_heads": 2}, {"enable_gqa": True}),
    ],
)
def test_a_fused_form_is_the_cpus_to_the_bit(dtype, form, sizes, options):
    tensors = leaves(dtype, **sizes)
    attend(tensors, "cuda", **options)
    before = waldo.stats()
    far, name, _ = attend(tensors, "cuda", **options)
    after = waldo.stats()
    assert name == form
    assert all(torch.equal(ours, plain) for ours, plain in zip(far, attend(tensors, "cpu", **options)[0], strict=True))
    assert (after["asks"], after["conforms"]) == (before["asks"], before["conforms"])


@pytest.mark.parametrize("mask", [torch.rand(7, 9) > -1, torch.randn(2, 1, 7, 9), torch.randn(7, 9)])
def test_masks_take_the_efficient_form(mask):
    tensors = leaves(torch.float32)
    far, name, _ = attend(tensors, "cuda", mask)
    assert name == EFFICIENT
    assert all(torch.equal(ours, plain) for ours, plain in zip(far, attend(tensors, "cpu", mask)[0], strict=True))


def test_layouts_are_those_of_cuda():
    packed = torch.randn(2, 7, 3 * 4 * 16, device="cuda", dtype=torch.float16)  # as attention is mostly written
    q, k, v = (part.view(2, 7, 4, 16).transpose(1, 2) for part in packed.split(4 * 16, dim=-1))
    conforms = waldo.stats()["conforms"]
    flash = F.scaled_dot_product_attention(q, k, v)
    efficient = F.scaled_dot_product_attention(*(tensor.float().contiguous() for tensor in (q, k, v)))
    assert flash.stride() == efficient.stride() == (4 * 7 * 16, 16, 4 * 16, 1)
    torch.cuda.synchronize()
    assert waldo.stats()["conforms"] == conforms


def test_wide_heads_are_not_for_flash_attention():
    assert attend(leaves(torch.float16, width=264), "cuda")[1] == EFFICIENT


@pytest.mark.parametrize(("dtype", "width"), [(torch.float64, 16), (torch.float32, 6)])
def test_what_no_fused_form_takes_is_written_out(dtype, width):
    tensors = leaves(dtype, width=width)
    far, name, _ = attend(tensors, "cuda")
    assert "ScaledDotProduct" not in name
    with sdpa_kernel(SDPBackend.MATH):
        plain, _, _ = attend(tensors, "cpu")
    assert all(torch.equal(a, b) for a, b in zip(far, plain, strict=True))


def test_forms_can_be_asked_for_by_name():
    tensors = leaves(torch.float32)
    with sdpa_kernel(SDPBackend.MATH):
        assert "ScaledDotProduct" not in attend(tensors, "cuda")[1]
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        assert attend(tensors, "cuda")[1] == EFFICIENT
    for form in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        with sdpa_kernel(form), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(RuntimeError, match=r"No available kernel\. Aborting execution"):
                attend(tensors, "cuda")
        assert any("to all be of dtype: {Half, BFloat16}" in str(warning.message) for warning in caught) == (
            form == SDPBackend.FLASH_ATTENTION
        )


@pytest.mark.parametrize("form", [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION])
def test_the_backward_of_dropout_draws_what_the_forward_drew(form):
    """Goal: the same mask. Method: where the output depends on one value alone, its gradient is the weight it kept."""
    q, k = torch.randn(2, 1, 1, 32, 8, device="cuda", dtype=torch.float16).unbind()
    v = torch.randn(1, 1, 32, 8, device="cuda", dtype=torch.float16, requires_grad=True)
    with sdpa_kernel(form):
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
    direction = torch.randn_like(out)
    (gradient,) = torch.autograd.grad(out, v, direction)
    # The output is linear in v: <direction, out> = <gradient, v>.
    left, right = (direction.float() * out.float()).sum(), (gradient.float() * v.float()).sum()
    torch.testing.assert_close(left, right, rtol=1e-2, atol=1e-2)
    assert not torch.equal(out, F.scaled_dot_product_attention(q, k, v))


def test_dropout_takes_the_form_that_the_cpu_takes():
    assert "ScaledDotProduct" not in attend(leaves(torch.float32), "cuda", dropout_p=0.25)[1]


def test_a_mask_that_learns():
    tensors, mask = leaves(torch.float32), torch.randn(7, 9)
    grads = []
    for device, form in (("cuda", SDPBackend.EFFICIENT_ATTENTION), ("cpu", SDPBackend.MATH)):
        bias = mask.to(device).requires_grad_()
        with sdpa_kernel(form):
            F.scaled_dot_product_attention(
                *(t.to(device).requires_grad_() for t in tensors), bias
            ).sin().sum().backward()
        grads.append(bias.grad.cpu())
    torch.testing.assert_close(*grads)


def test_torch_backends_cuda_says_what_can_be_used():
    half = [tensor.cuda() for tensor in leaves(torch.float16)]
    wide = [tensor.cuda() for tensor in leaves(torch.float32)]
    near = leaves(torch.float16)

    def usable(tensors):
        params = cuda.SDPAParams(*tensors, None, 0.0, False, False)
        return (
            cuda.can_use_flash_attention(params),
            cuda.can_use_efficient_attention(params),
            cuda.can_use_cudnn_attention(params),
        )

    assert usable(half) == (True, True, False)
    assert usable(wide) == (False, True, False)
    assert usable(near) == (False, False, False)
    assert cuda.is_flash_attention_available()
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        assert usable(half) == (False, True, False)


def test_compiled_attention_takes_rows_of_any_number():
    """Goal: sizes that a graph leaves open decide nothing but what CUDA lets them decide."""
    from torch._dynamo.utils import counters

    def attention(q, k, v):
        return F.scaled_dot_product_attention(q * 2, k, v, is_causal=True).sum(0)

    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(attention)
    for rows in (5, 7, 9, 12):
        tensors = leaves(torch.float32, rows=rows, columns=rows)
        assert torch.equal(compiled(*(t.cuda() for t in tensors)).cpu(), attention(*tensors))
    assert counters["stats"]["unique_graphs"] == 2
    torch._dynamo.reset()
