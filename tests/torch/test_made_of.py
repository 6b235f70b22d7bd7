"""Tensors that are made of plain ones: sparse in every layout and nested, on `cuda` against the CPU."""

import copy

import pytest
import torch
from compare import to_cuda
from conformance.comparing import same


def matrix():
    return torch.randn(6, 8).relu()


def stacked(x):
    return torch.stack([x, x + 1]).relu()


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
    "mul by a larger dense one": lambda s, x: s * stacked(x),
    "mul by one without dimensions": lambda s, x: s * torch.full((), 2.0, device=x.device).to_sparse(),
    "mul of other dense sizes": lambda s, x: stacked(x).to_sparse(2) * stacked(x)[:, :, :1].to_sparse(2),
    "hspmm": lambda s, x: torch.hspmm(s, x.t()),
    "addmm": lambda s, x: torch.sparse.addmm(torch.ones_like(x[:, :6]), s, x.t(), beta=0.5, alpha=2),
    "bmm": lambda s, x: torch.stack([x, x]).to_sparse().bmm(torch.stack([x.t(), x.t()])),
    "sum": lambda s, x: torch.sparse.sum(s, 0),
    "softmax": lambda s, x: torch.sparse.softmax(s, 1),
    "log_softmax": lambda s, x: torch.sparse.log_softmax(s, 0),
    "sin": lambda s, x: s.sin(),
    "transpose": lambda s, x: s.t().coalesce(),
    "index_select": lambda s, x: s.index_select(1, torch.tensor([3, 0, 3], device=x.device)),
    "to_sparse_csr": lambda s, x: s.to_sparse_csr(),
}
COMPRESSED = {
    "to_dense": lambda s, x: s.to_dense(),
    "mm": lambda s, x: s @ x.t().contiguous(),
    "mv": lambda s, x: s @ x[0],
    "addmm": lambda s, x: torch.addmm(torch.ones_like(x[:, :6]), s, x.t().contiguous(), beta=0.5, alpha=2),
    "mul by a number": lambda s, x: s * 2,
}
CSR = COMPRESSED | {
    "dense by sparse": lambda s, x: x.t() @ s,
    "linear": lambda s, x: torch.nn.functional.linear(x, s, x[:, 0]),
    "sparse times sparse": lambda s, x: s @ s.t().to_sparse_csr(),
    "sparse times columns": lambda s, x: s @ s.t(),
    "addmm to a sparse one": lambda s, x: torch.addmm((x @ x.t()).to_sparse_csr(), s, s.t().to_sparse_csr(), beta=0.5),
    "addmm out": lambda s, x: torch.addmm(
        torch.ones_like(x[:, :6]), s, x.t().contiguous(), out=torch.empty(0, device=x.device)
    ),
    "add": lambda s, x: s + (x - 0.5).relu().to_sparse_csr() * 2,
    "add to dense": lambda s, x: torch.add(x, s, alpha=0.5),
    "sum of rows": lambda s, x: s.sum(1, keepdim=True),
    "solve": lambda s, x: (
        torch.triangular_solve(x, (x @ x.t()).triu().add(torch.eye(6, device=x.device)).to_sparse_csr()).solution
    ),
    "sampled_addmm": lambda s, x: torch.sparse.sampled_addmm(s, x @ x.t(), x, beta=0.5, alpha=2),
    "to_sparse_coo": lambda s, x: s.to_sparse_coo(),
    "to_sparse_csc": lambda s, x: s.to_sparse_csc(),
    "to_sparse_bsc": lambda s, x: s.to_sparse_bsc((2, 2)),
}
CSC = COMPRESSED | {
    "dense by sparse": lambda s, x: x.t() @ s,
    "to_sparse_csr": lambda s, x: s.to_sparse_csr(),
    "sparse times sparse": lambda s, x: s @ s.t().to_sparse_csc(),
}
BSR = COMPRESSED | {
    "linear": lambda s, x: torch.nn.functional.linear(x, s, x[:, 0]),
    "to_sparse_bsc": lambda s, x: s.to_sparse_bsc((2, 2)),
}
LAYOUTS = {
    "coo": (COO, lambda x: x.to_sparse()),
    "csr": (CSR, lambda x: x.to_sparse_csr()),
    "csc": (CSC, lambda x: x.to_sparse_csc()),
    "bsr": (BSR, lambda x: x.to_sparse_bsr((2, 2))),
}


@pytest.mark.parametrize("layout, name", [(layout, name) for layout in LAYOUTS for name in LAYOUTS[layout][0]])
def test_sparse(layout, name):
    functions, make = LAYOUTS[layout]
    x = matrix()
    same(functions[name](make(x), x), functions[name](make(x.cuda()), x.cuda()))


def test_how_many_values_a_result_has_depends_on_where_they_are():
    """Goal: tensors of the same sizes, of which some have coordinates twice, give results of different sizes."""
    values = torch.arange(1.0, 4)
    for places in ([0, 1, 2], [0, 0, 1], [2, 2, 2], [3, 1, 0]):
        results = []
        for device in ("cpu", "cuda"):
            sparse = torch.sparse_coo_tensor(torch.tensor([places]), values, (4,)).to(device)
            other = torch.sparse_coo_tensor(torch.tensor([[0, 1, 2]]), values, (4,)).to(device).coalesce()
            both = sparse.coalesce()
            results.append((both, both + other, both * other, torch.sparse.softmax(sparse, 0)))
        same(*results)


@pytest.mark.parametrize(
    "product",
    [
        lambda x: x[:1].to_sparse() * x.to_sparse(),
        lambda x: torch.addmm(x, x.to_sparse(), x.to_sparse()),
        lambda x: x.to_sparse_csr() @ x,
        lambda x: x.to_sparse_bsc((2, 2)) @ x.t(),
    ],
    ids=["coo sizes", "coo both", "sizes", "bsc"],
)
def test_what_the_cpu_refuses_is_refused(product):
    with pytest.raises(RuntimeError) as here:
        product(matrix())
    with pytest.raises(RuntimeError) as there:
        product(matrix().cuda())
    assert str(there.value).splitlines()[0].startswith(str(here.value).splitlines()[0][:60])
    assert (torch.ones(2, device="cuda") + 1).tolist() == [2, 2]


def test_sparse_tensors_go_up_and_down():
    for sparse in (matrix().to_sparse(), matrix().to_sparse_csr()):
        assert sparse.cuda().is_cuda
        same(sparse, sparse.cuda().cpu(), strides=False)


def test_gradients_pass_through_a_sparse_product():
    x = matrix()
    results = []
    for device in ("cpu", "cuda"):
        weight = torch.linspace(-1, 1, 40).reshape(8, 5).to(device).requires_grad_()
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
    parts = [torch.tensor([0, 1, 2]).cuda(), torch.tensor([0, 99]).cuda(), torch.ones(2).cuda()]
    rows = torch.sparse_csr_tensor(*parts, (2, 3), check_invariants=False)
    with pytest.raises(RuntimeError, match="col_indices"):
        (rows @ torch.ones(3, 2, device="cuda")).cpu()
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


@pytest.mark.parametrize("lengths", [(3, 5), (2, 1, 4), (3, 2)])
def test_a_transformer_takes_a_padding_mask(lengths):
    """Goal: without gradients TransformerEncoder computes on a nested tensor of what is not padding, as on the CPU."""
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
    here = torch.nn.TransformerEncoder(layer, 2).eval()
    there = copy.deepcopy(here).cuda()
    x = torch.randn(len(lengths), max(lengths), 8)
    padding = torch.arange(max(lengths))[None] >= torch.tensor(lengths)[:, None]
    with torch.no_grad():
        expected = here(x, src_key_padding_mask=padding)
        assert expected[padding].eq(0).all()
        same(expected, there(x.cuda(), src_key_padding_mask=padding.cuda()))


def test_attention_on_jagged_tensors():
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        parts = [torch.randn(n, 8).to(device) for n in (2, 5, 1)]
        jagged = torch.nested.nested_tensor(parts, layout=torch.jagged).unflatten(-1, [2, 4]).transpose(1, 2)
        with torch.no_grad():
            attended = torch.nn.functional.scaled_dot_product_attention(jagged, jagged, jagged)
        nested = torch.nested.nested_tensor(parts)
        results.append((attended.transpose(1, 2).values(), list(torch.bmm(nested, nested.transpose(1, 2)).unbind())))
    same(*results)
