"""Tensors that are made of plain ones: sparse (COO and CSR) and nested, on `cuda` against the CPU."""

import pytest
import torch
from compare import to_cuda
from conformance.comparing import same


def matrix():
    return torch.randn(5, 7).relu()


COO = {
    "coalesce": lambda s, x: torch.sparse_coo_tensor(
        s._indices().repeat(1, 2), s._values().repeat(2), s.shape
    ).coalesce(),
    "to_dense": lambda s, x: s.to_dense(),
    "add": lambda s, x: s + s * 2,
    "add to dense": lambda s, x: x + s,
    "in-place add to dense": lambda s, x: x.clone().add_(s, alpha=0.5),
    "mul": lambda s, x: s * s,
    "mul by a dense one": lambda s, x: s * x.exp(),
    "mul by a row": lambda s, x: x[0] * s,
    "mm": lambda s, x: torch.sparse.mm(s, x.t()),
    "matmul": lambda s, x: s @ x.t().contiguous(),
    "sparse times sparse": lambda s, x: torch.sparse.mm(s, s.t()),
    "addmm": lambda s, x: torch.sparse.addmm(torch.ones_like(x[:, :5]), s, x.t(), beta=0.5, alpha=2),
    "bmm": lambda s, x: torch.stack([x, x]).to_sparse().bmm(torch.stack([x.t(), x.t()])),
    "sum": lambda s, x: torch.sparse.sum(s, 0),
    "softmax": lambda s, x: torch.sparse.softmax(s, 1),
    "log_softmax": lambda s, x: torch.sparse.log_softmax(s, 0),
    "sin": lambda s, x: s.sin(),
    "transpose": lambda s, x: s.t().coalesce(),
    "index_select": lambda s, x: s.index_select(1, torch.tensor([3, 0, 3], device=x.device)),
    "to_sparse_csr": lambda s, x: s.to_sparse_csr(),
}
CSR = {
    "to_dense": lambda s, x: s.to_dense(),
    "mm": lambda s, x: s @ x.t().contiguous(),
    "dense by sparse": lambda s, x: x.t() @ s,
    "mv": lambda s, x: s @ x[0],
    "addmm": lambda s, x: torch.addmm(torch.ones_like(x[:, :5]), s, x.t().contiguous(), beta=0.5, alpha=2),
    "sampled_addmm": lambda s, x: torch.sparse.sampled_addmm(s, x @ x.t(), x, beta=0.5, alpha=2),
    "mul by a number": lambda s, x: s * 2,
    "to_sparse_coo": lambda s, x: s.to_sparse_coo(),
}


@pytest.mark.parametrize("name", COO)
def test_coo(name):
    x = matrix()
    expected = COO[name](x.to_sparse(), x)
    far = x.cuda()
    same(expected, COO[name](far.to_sparse(), far))


@pytest.mark.parametrize("name", CSR)
def test_csr(name):
    x = matrix()
    expected = CSR[name](x.to_sparse_csr(), x)
    far = x.cuda()
    same(expected, CSR[name](far.to_sparse_csr(), far))


def test_sparse_tensors_go_up_and_down():
    for sparse in (matrix().to_sparse(), matrix().to_sparse_csr()):
        assert sparse.cuda().is_cuda
        same(sparse, sparse.cuda().cpu(), strides=False)


def test_gradients_pass_through_a_sparse_product():
    x = matrix()
    results = []
    for device in ("cpu", "cuda"):
        weight = torch.linspace(-1, 1, 35).reshape(7, 5).to(device).requires_grad_()
        sparse = x.to(device).to_sparse().requires_grad_()
        torch.sparse.mm(sparse, weight).square().sum().backward()
        results.append((weight.grad, sparse.grad.to_dense()))
    same(*results)


@pytest.mark.parametrize("make", [torch.nn.Embedding, torch.nn.EmbeddingBag])
def test_an_embedding_with_sparse_gradients_trains(make):
    """Goal: the sparse gradient and SparseAdam's state and steps are the CPU's."""
    here = make(9, 4, sparse=True)
    there = make(9, 4, sparse=True).cuda()
    there.load_state_dict(here.state_dict())
    rows = torch.tensor([[1, 4, 4], [0, 8, 1]])
    for module, index in ((here, rows), (there, to_cuda(rows))):
        optimizer = torch.optim.SparseAdam(module.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            module(index).square().sum().backward()
            assert module.weight.grad.is_sparse
            optimizer.step()
    same(here.weight.detach(), there.weight.detach())
    same(here.weight.grad.coalesce(), there.weight.grad.coalesce())


def test_a_coordinate_past_the_end_is_refused():
    """Goal: the worker checks what a sparse tensor says of itself before a kernel believes it."""
    indices = torch.tensor([[0, 99]], device="cuda")
    sparse = torch.sparse_coo_tensor(indices, torch.ones(2, device="cuda"), (3,), check_invariants=False)
    with pytest.raises(RuntimeError, match="size is inconsistent with indices"):
        sparse.coalesce().values().cpu()
    assert (torch.ones(2, device="cuda") + 1).tolist() == [2, 2]


def test_nested():
    parts = [torch.randn(2, 3), torch.randn(4, 3)]
    here, there = torch.nested.nested_tensor(parts), torch.nested.nested_tensor([p.cuda() for p in parts])
    assert there.is_cuda and there.is_nested
    same((here * 2).unbind(), (there * 2).unbind())
    same(here.to_padded_tensor(0.5), there.to_padded_tensor(0.5))
    layer, far = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2).cuda()
    far.load_state_dict(layer.state_dict())
    same(layer(here).unbind(), far(there).unbind())
