"""What CUDA decomposes in another way than the CPU, written out for the CPU: {name of the variant: function}.

Every entry calls, on CPU tensors, the operators that PyTorch calls on CUDA ones.
"""

import contextlib
import functools
import inspect
import math
import sys
import types

import torch

REFERENCES = {}
plain_attention = torch.nn.functional.scaled_dot_product_attention  # also while a module is given another


def reference(*names):
    def register(function):
        REFERENCES.update(dict.fromkeys(names, function))
        return function

    return register


@reference("nn.functional.scaled_dot_product_attention")
def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """CUDA chooses among forms of its own; a fused one is the CPU's fused one here, in CUDA's layout."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def attend(query, key, value, scale=scale):
        return plain_attention(query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa)

    if dropout_p == 0:
        form = attention_form(query, key, value, attn_mask, is_causal, enable_gqa)
        if form == "flash":  # with its width padded to a multiple of 8
            width = query.size(-1)
            pad = [InItsOrder.apply(torch.nn.functional.pad(x, (0, -width % 8))) for x in (query, key, value)]
            out = attend(*pad, 1 / math.sqrt(width) if scale is None else scale)
            return out[..., :width] if width % 8 else out
        if form == "efficient":
            return attend(query, key, value).transpose(1, 2).contiguous().transpose(1, 2).clone()  # no view
        with sdpa_kernel(SDPBackend.MATH):
            return attend(query, key, value)
    torch.manual_seed(42)  # as op_db's own wrapper of this function
    given = query.dtype
    if given in (torch.float16, torch.bfloat16):
        query, key, value = query.float(), key.float(), value.float()
    root = math.sqrt(1 / math.sqrt(query.size(-1)) if scale is None else scale)
    if is_causal:
        allowed = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool).tril()
        attn_mask = torch.zeros_like(allowed, dtype=query.dtype).masked_fill_(~allowed, -math.inf)
    weights = torch.matmul(query * root, key.transpose(-2, -1) * root)
    if attn_mask is not None:
        weights = weights + attn_mask
    return torch.matmul(dropout(torch._safe_softmax(weights, -1), dropout_p), value).to(given)


class InItsOrder(torch.autograd.Function):
    """Nothing but the layout of the gradient, which is the tensor's own as CUDA's flash attention leaves it."""

    @staticmethod
    def forward(ctx, x):
        ctx.like = x.detach()
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return torch.empty_like(ctx.like).copy_(gradient)


def attention_form(query, key, value, mask, is_causal, enable_gqa):
    """ATen/native/transformers/cuda/sdp_utils.cpp on compute capability 8.0, where the CPU has a fused form as well."""
    tensors = (query, key, value)
    half = query.dtype in (torch.float16, torch.bfloat16)
    width, out_width = query.size(-1), value.size(-1)
    choice = torch._fused_sdp_choice(query, key, value, mask, 0.0, is_causal, enable_gqa=enable_gqa)
    if choice != torch.nn.attention.SDPBackend.FLASH_ATTENTION.value or any(x.dtype != query.dtype for x in tensors):
        return "math"
    if half and mask is None and width <= 256 and not (is_causal and query.size(-2) != key.size(-2)):
        return "flash"
    unit = 8 if half else 4
    aligned = width % unit == 0 and out_width % unit == 0 and all(x.storage_offset() % unit == 0 for x in tensors)
    masked_in_rows = mask is None or mask.stride(-1) == 1
    grouped = enable_gqa or not query.size(1) == key.size(1) == value.size(1)
    fits = aligned and masked_in_rows and not grouped and (half or query.dtype == torch.float32)
    return "efficient" if fits else "math"


def dropout(x, p):
    """CUDA has one operator for it, which the autograd of dropout on the CPU does without."""
    return torch.native_dropout(x, p, True)[0]


@reference("nn.functional.max_pool1d")
def max_pool1d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """Without a gradient the CPU has a kernel of its own, which makes no view."""
    both = torch.max_pool1d_with_indices(input, kernel_size, stride or [], padding, dilation, ceil_mode)
    return both if return_indices else both[0]


@reference("nn.functional.pixel_unshuffle")
def pixel_unshuffle(x, downscale_factor):
    """The CPU has a kernel of its own."""
    factor = downscale_factor
    *batch, channels, height, width = x.shape
    apart = x.reshape(*batch, channels, height // factor, factor, width // factor, factor)
    n = len(batch)
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    packed = apart.permute(order).clone(memory_format=torch.contiguous_format)
    return torch.ops.aten._unsafe_view(packed, [*batch, channels * factor**2, height // factor, width // factor])


def gradient_of_norm(grad, x, p, norm, dims):
    """PyTorch's norm_backward, whose result keeps the norm's precision."""
    if p == 1:
        return x.sgn() * grad
    if p == 2:
        return grad * (x / norm).masked_fill_(norm == 0, 0)
    assert p == math.inf
    largest = (x.abs() == norm).type_as(x)
    return x.sgn() * ((grad / largest.count_nonzero(dims).reshape(norm.shape)) * largest)


class Renorm(torch.autograd.Function):
    """Its backward calculates in double on the CPU, in the tensor's own precision on CUDA."""

    @staticmethod
    def forward(x, p, dim, maxnorm):
        return torch.renorm(x, p, dim, maxnorm)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.p, ctx.dim, ctx.maxnorm = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        dims = [d for d in range(x.dim()) if d != ctx.dim % x.dim()]
        wide = {torch.bfloat16: torch.float32, torch.float16: torch.float32}.get(x.dtype, x.dtype)
        norm = torch.linalg.vector_norm(x, ctx.p, dims, keepdim=True, dtype=wide)
        weight = x.conj() * grad
        weight = (weight.real if weight.is_complex() else weight).sum(dims, keepdim=True, dtype=norm.dtype)
        of_norm = gradient_of_norm(weight, x, ctx.p, norm, dims)
        inverse = (norm + 1e-7).reciprocal()
        scaled = ctx.maxnorm * inverse * (grad - inverse * of_norm)
        return torch.where(norm > ctx.maxnorm, scaled.to(grad.dtype), grad), None, None, None


@reference("renorm")
def renorm(x, p, dim, maxnorm):
    return Renorm.apply(x, p, dim, maxnorm)


@functools.cache
def linear_cross_entropy_of_cuda():
    """PyTorch's module of that name, taking on the CPU the way that it takes on CUDA."""
    import torch.nn.modules.linear_cross_entropy as original

    wide = torch.library.Library("aten", "IMPL")
    wide.impl("mm.dtype", lambda a, b, dtype: a.to(dtype) @ b.to(dtype), "CPU")
    wide.impl("mm.dtype_out", lambda a, b, dtype, *, out: torch.mm(a.to(dtype), b.to(dtype), out=out), "CPU")
    module = types.ModuleType(original.__name__)
    module.library = wide  # lives as long
    source = inspect.getsource(original)
    assert source.count('device.type == "cuda"') == 1 and source.count('"torch_nn::') == 2
    source = source.replace('device.type == "cuda"', 'device.type == "cpu"')
    # Operators of its own: defined once more under their names, PyTorch's would be destroyed while calls hold them.
    source = source.replace('"torch_nn::', '"torch_nn_of_cuda::')
    sys.modules[original.__name__] = module  # its dataclasses look themselves up
    try:
        exec(compile(source, original.__file__, "exec"), module.__dict__)
    finally:
        sys.modules[original.__name__] = original
    return original, module


@contextlib.contextmanager
def linear_cross_entropy_as_on_cuda():
    """CUDA multiplies narrow floats into wide ones, and has defaults of its own for what it accumulates in."""
    from torch.nn.modules.linear_cross_entropy_options import LinearCrossEntropyOptions

    original, module = linear_cross_entropy_of_cuda()
    adjust = LinearCrossEntropyOptions._adjust
    sys.modules[original.__name__] = module
    LinearCrossEntropyOptions._adjust = lambda self, **given: adjust(self, **given | {"device": torch.device("cuda:0")})
    try:
        yield
    finally:
        LinearCrossEntropyOptions._adjust = adjust
        sys.modules[original.__name__] = original


@reference("nn.functional.linear_cross_entropy.chunked", "nn.functional.linear_cross_entropy.chunked_none")
def linear_cross_entropy(*args, **kwargs):
    with linear_cross_entropy_as_on_cuda():
        return torch.nn.functional.linear_cross_entropy(*args, **kwargs)


@reference("sparse.mm.reduce")
def sparse_mm_reduce(*args, **kwargs):
    """CUDA has no kernel for it."""
    raise NotImplementedError(
        "Could not run 'aten::_sparse_mm_reduce_impl' with arguments from the 'SparseCsrCUDA' backend. "
        "This could be because the operator doesn't exist for this backend"
    )
