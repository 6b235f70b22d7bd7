"""The same inputs twice: tensors that share a storage share it there too, with the same strides, offsets and bits."""

import torch
from torch.utils._pytree import tree_flatten, tree_map


class Mover:
    """Copies structures to one device. Leaves that require gradients are collected in `leaves`, in order of appearance."""

    def __init__(self, device):
        self.device = torch.device(device)
        self.storages, self.tensors = {}, {}
        self.leaves = []

    def __call__(self, structure):
        return tree_map(self._item, structure)

    def sample(self, sample):
        return self((sample.input, sample.args, sample.kwargs))

    def _item(self, item):
        if isinstance(item, torch.Tensor):
            if id(item) not in self.tensors:
                self.tensors[id(item)] = (item, self._tensor(item))
            return self.tensors[id(item)][1]
        if isinstance(item, torch.device):
            return self.device if item.type == "cuda" else item
        if isinstance(item, str) and (item == "cuda" or item.startswith("cuda:")):
            return str(self.device)
        if isinstance(item, torch.Generator) and item.device.type == "cuda":
            return torch.Generator(self.device).manual_seed(item.initial_seed())
        return item

    def _target(self, tensor):
        return self.device if tensor.device.type == "cuda" else tensor.device

    def _tensor(self, tensor):
        with torch.no_grad():
            moved = self._copied(tensor)
        if tensor.requires_grad:
            moved.requires_grad_()
            self.leaves.append(moved)
        if isinstance(tensor, torch.nn.Parameter):
            moved = torch.nn.Parameter(moved.detach(), tensor.requires_grad)
            if tensor.requires_grad:
                self.leaves[-1] = moved
        return moved

    def _copied(self, tensor):
        plain = tensor.detach()
        if plain.layout is not torch.strided or plain.is_nested or plain.is_quantized:
            return plain.to(self._target(tensor), copy=True)
        storage = plain.untyped_storage()
        key = (storage.data_ptr() or id(tensor), storage.nbytes(), plain.device)
        if key not in self.storages:
            self.storages[key] = copied_storage(storage, self._target(tensor))
        moved = torch.empty(0, dtype=plain.dtype, device=self._target(tensor))
        moved.set_(self.storages[key], plain.storage_offset(), plain.size(), plain.stride())
        if plain.is_conj():
            moved = moved.conj()
        return torch._neg_view(moved) if plain.is_neg() else moved


def copied_storage(storage, device):
    raw = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    return raw.to(device, copy=True).untyped_storage()


def tensors_of(structure):
    return [item for item in tree_flatten(structure)[0] if isinstance(item, torch.Tensor)]
