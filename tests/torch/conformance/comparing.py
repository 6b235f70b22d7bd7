"""Is what comes from `cuda` what comes from the CPU? Every difference has a class, which the table counts."""

import torch
from torch.utils._pytree import tree_flatten


class Different(Exception):
    """`kind` is the class: value, dtype, shape, strides, alias, structure, number, version, …"""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


def bits(tensor):
    """A dense CPU tensor of integers with the bits of a tensor; every NaN is one NaN."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    tensor = tensor.resolve_conj().resolve_neg().cpu().contiguous()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.is_floating_point():
        if tensor.dtype.itemsize > 1:
            tensor = torch.where(tensor.isnan(), float("nan"), tensor)
        return tensor.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.dtype.itemsize])
    return tensor


def parts(tensor):
    """The dense tensors that a sparse one is made of, by name."""
    if tensor.layout is torch.strided:
        return {"": tensor}
    if tensor.layout is torch.sparse_coo:
        return {" indices": tensor._indices(), " values": tensor._values()}
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return {" crow": tensor.crow_indices(), " col": tensor.col_indices(), " values": tensor.values()}
    return {" ccol": tensor.ccol_indices(), " row": tensor.row_indices(), " values": tensor.values()}


def brief(tensor):
    text = str(tensor.flatten()[:6].tolist())
    return text if len(text) < 120 else text[:120] + "…"


def same_tensor(here, there, values=True, strides=True, what=""):
    if here.device.type == "cpu" and there.device.type == "cpu":
        pass  # an operator that answers on the CPU for both
    elif not there.is_cuda:
        raise Different("device", f"{what}on {there.device}")
    if here.dtype != there.dtype:
        raise Different("dtype", f"{what}{there.dtype} instead of {here.dtype}")
    if here.layout != there.layout or here.is_nested != there.is_nested:
        raise Different("layout", f"{what}{there.layout} instead of {here.layout}")
    if here.is_nested:
        for x, y in zip(here.unbind(), there.unbind(), strict=True):
            same_tensor(x, y, values, strides, what)
        return
    if here.shape != there.shape:
        raise Different("shape", f"{what}{tuple(there.shape)} instead of {tuple(here.shape)}")
    if here.layout is not torch.strided:
        if here.layout is torch.sparse_coo and here.is_coalesced() != there.is_coalesced():
            raise Different("layout", f"{what}is_coalesced() is {there.is_coalesced()}")
        mine, theirs = parts(here), parts(there)
        for name in mine:
            same_tensor(mine[name], theirs[name], values, strides, what + name[1:] + " ")
        return
    if here.is_conj() != there.is_conj() or here.is_neg() != there.is_neg():
        raise Different("lazy bits", f"{what}conj {there.is_conj()}, neg {there.is_neg()} on cuda")
    if values:
        mine, theirs = bits(here), bits(there)
        if not torch.equal(mine, theirs):
            wrong = (mine != theirs).nonzero()[0].tolist()
            count = int((mine != theirs).sum())
            at = tuple(wrong[: here.dim()])
            raise Different(
                far_apart(here, there),
                f"{what}{count} of {mine.numel()} differ, first at {at}: {there[at].item()} instead of {here[at].item()}",
            )
    if strides and here.stride() != there.stride():
        raise Different("strides", f"{what}{there.stride()} instead of {here.stride()} for {tuple(here.shape)}")
    if strides and here.storage_offset() != there.storage_offset():
        raise Different("strides", f"{what}offset {there.storage_offset()} instead of {here.storage_offset()}")
    if here.requires_grad != there.requires_grad:
        raise Different("requires_grad", f"{what}{there.requires_grad} instead of {here.requires_grad}")


def far_apart(here, there):
    """A last bit is another class than a wrong value."""
    here, there = here.detach().resolve_conj().resolve_neg(), there.detach().cpu().resolve_conj().resolve_neg()
    if not (here.is_floating_point() or here.is_complex()):
        return "value"
    wide = torch.complex128 if here.is_complex() else torch.float64
    tolerance = 16 * torch.finfo(here.dtype).eps
    close = torch.isclose(here.to(wide), there.to(wide), rtol=tolerance, atol=tolerance, equal_nan=True)
    return "rounding" if close.all() else "value"


def same_number(x, y):
    """Equal, to the bit where both are floats: 0.0 is not -0.0, and NaN is NaN."""
    if isinstance(x, complex) and isinstance(y, complex):
        return same_number(x.real, y.real) and same_number(x.imag, y.imag)
    if isinstance(x, float) and isinstance(y, float):
        return x.hex() == y.hex()
    return x == y


def same(here, there, values=True, strides=True, what=""):
    """Compares two structures: tensors as above, everything else by equality."""
    mine, my_shape = tree_flatten(here)
    theirs, their_shape = tree_flatten(there)
    if my_shape != their_shape:
        raise Different("structure", f"{what}{their_shape} instead of {my_shape}")
    for index, (x, y) in enumerate(zip(mine, theirs)):
        name = what if len(mine) == 1 else f"{what}[{index}] "
        if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
            same_tensor(x, y, values, strides, name)
        elif type(x) is not type(y):
            raise Different("structure", f"{name}{type(y).__name__} instead of {type(x).__name__}")
        elif isinstance(x, torch.device):
            if x.type == y.type and x.type != "cpu":
                raise Different("number", f"{name}{y}")
        elif not same_number(x, y):
            raise Different("number", f"{name}{y!r} instead of {x!r}")


def aliases(inputs, outputs):
    """Which input or earlier output each output shares its storage with, and whether it is that very tensor."""
    seen, found = [], []
    tensors = [t for t in inputs if t.layout is torch.strided and not t.is_nested]
    for out in outputs:
        if out.layout is not torch.strided or out.is_nested:
            continue
        entry = None
        for index, other in enumerate(tensors + seen):
            if out is other:
                entry = ("is", index)
                break
            if out.numel() and other.numel() and out.untyped_storage()._cdata == other.untyped_storage()._cdata:
                entry = ("shares", index)
                break
        found.append((entry, out._is_view()))
        seen.append(out)
    return found
