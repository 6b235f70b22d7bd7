"""Tensors on disk, in pickles and in copies, and the methods of UntypedStorage that a CPU build has no CUDA half of."""

import copy
import io
import pickle

import pytest
import torch


def saved(value, **keywords):
    file = io.BytesIO()
    torch.save(value, file, **keywords)
    file.seek(0)
    return file


@pytest.mark.parametrize("zip_format", [True, False])
def test_save_and_load_keep_the_device(zip_format):
    x = torch.arange(6.0, device="cuda:1").view(2, 3)
    file = saved({"x": x, "row": x[1]}, _use_new_zipfile_serialization=zip_format)
    loaded = torch.load(file)
    assert loaded["x"].device == torch.device("cuda:1")
    assert loaded["x"].tolist() == x.tolist()
    assert loaded["row"].untyped_storage().data_ptr() == loaded["x"].untyped_storage().data_ptr()  # still a view
    file.seek(0)
    on_cpu = torch.load(file, map_location="cpu")["x"]
    assert on_cpu.device.type == "cpu"
    assert on_cpu.tolist() == x.tolist()
    file.seek(0)
    assert torch.load(file, map_location={"cuda:1": "cuda:0"})["x"].device == torch.device("cuda:0")


def test_a_file_of_a_cpu_machine_loads_onto_the_device():
    x = torch.arange(4)
    assert torch.load(saved(x), map_location="cuda").tolist() == [0, 1, 2, 3]
    assert torch.load(saved(x), map_location="cuda", weights_only=False).is_cuda


def test_files_carry_cuda_tags():
    """Goal: interchangeable with a real CUDA machine's files: the tag in the pickle is cuda:0."""
    file = saved(torch.ones(2, device="cuda"))
    assert b"cuda:0" in file.getvalue()


def test_pickle_and_deepcopy():
    x = torch.arange(3.0, device="cuda", requires_grad=True)
    for other in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert other.device == x.device
        assert other.tolist() == x.tolist()
        assert other.requires_grad
        assert other.data_ptr() != x.data_ptr()
    typed = x.detach().storage()
    assert pickle.loads(pickle.dumps(typed)).tolist() == typed.tolist()


def test_model_and_optimizer_state():
    model = torch.nn.Linear(3, 2).cuda()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3, device="cuda")).sum().backward()
    optimizer.step()
    state = torch.load(saved({"model": model.state_dict(), "optimizer": optimizer.state_dict()}))
    other = torch.nn.Linear(3, 2).cuda()
    other.load_state_dict(state["model"])
    assert torch.equal(other.weight, model.weight)
    torch.optim.Adam(other.parameters()).load_state_dict(state["optimizer"])


def test_untyped_storage():
    storage = torch.UntypedStorage(10, device="cuda:1")
    assert (storage.nbytes(), storage.device) == (10, torch.device("cuda:1"))
    storage.fill_(7)
    assert storage.tolist() == [7] * 10
    assert storage[3] == 7
    assert storage.cpu().device.type == "cpu"
    assert storage.clone().tolist() == [7] * 10
    storage.resize_(4)
    assert storage.tolist() == [7] * 4
    storage.resize_(0)
    assert storage.nbytes() == 0
    storage.resize_(6)
    storage.copy_(torch.UntypedStorage([1, 2, 3, 4, 5, 6]))
    assert storage.tolist() == [1, 2, 3, 4, 5, 6]
    assert torch.UntypedStorage(3).device.type == "cpu"
    assert torch.UntypedStorage([1, 2], device="cuda").tolist() == [1, 2]


def test_byteswap():
    x = torch.tensor([1, 256], dtype=torch.int16, device="cuda")
    x.untyped_storage().byteswap(torch.int16)
    assert x.tolist() == [256, 1]


def test_resizing_a_storage_shows_in_its_tensors_and_figures():
    before = torch.cuda.memory_allocated()
    x = torch.arange(1000.0, device="cuda")
    x.untyped_storage().resize_(0)
    assert torch.cuda.memory_allocated() == before
    x.untyped_storage().resize_(4000)
    x.copy_(torch.arange(1000.0))
    assert x.sum().item() == 499500
    assert torch.cuda.memory_allocated() == before + 4096


PRINTED = {
    "small": lambda: torch.arange(6.0).view(2, 3) / 7,
    "scalar": lambda: torch.tensor(3.5),
    "empty": lambda: torch.empty(0, 2),
    "ints": lambda: torch.arange(20),
    "bool": lambda: torch.arange(5) > 2,
    "long vector": lambda: torch.arange(100_000) * 3,
    "matrix": lambda: torch.arange(1_000_000.0).view(1000, 1000),
    "cube": lambda: torch.arange(1_000_000.0).view(100, 100, 100) * 1e-9,
    "narrow": lambda: torch.arange(60_000.0).view(20_000, 3),
    "wide": lambda: torch.arange(60_000.0).view(3, 20_000),
    "complex": lambda: torch.arange(4.0) * 1j,
    "nan": lambda: torch.tensor([float("nan"), 1.0, float("inf")]),
    "half": lambda: torch.arange(5).half(),
}


@pytest.mark.parametrize("which", PRINTED)
def test_print_equals_the_cpu_s(which):
    here = PRINTED[which]()
    text = repr(here)
    there = repr(here.cuda())
    assert there.replace(", device='cuda:0'", "").replace("\n       device='cuda:0'", "").split() == text.split()


@pytest.mark.parametrize("which", ["small", "matrix", "cube"])
def test_print_waits_once(which):
    import waldo

    x = PRINTED[which]().cuda()
    repr(x)
    torch.cuda.synchronize()
    before = waldo.stats()["waits"]
    repr(x)
    assert waldo.stats()["waits"] - before == 1


def test_waits_name_the_line():
    import waldo

    x = torch.ones(1, device="cuda")
    x.item()
    places = {(place["file"], place["line"]) for place in waldo.stats()["waits_at"]}
    line = next(i for i, text in enumerate(open(__file__), 1) if text.strip() == "x.item()")
    assert (__file__, line) in places


@pytest.mark.parametrize("view", ["x", "x[1:]", "x.t()", "x[:, 2]", "x[:0]", "x[1, 1]"])
def test_dlpack_gives_the_same_memory(view):
    """Goal: out through DLPack and in again is another name for the same memory on the worker, as on a GPU."""
    x = torch.arange(12.0, device="cuda").reshape(3, 4)
    there = eval(view, {"x": x})
    back = torch.from_dlpack(there)
    assert (back.shape, back.stride(), back.device, back.dtype) == (
        there.shape,
        there.stride(),
        there.device,
        there.dtype,
    )
    assert back.data_ptr() == there.data_ptr()
    back.add_(100)
    assert torch.equal(back.cpu(), there.cpu())
    assert (x.cpu() >= 100).sum() == there.numel()
    capsule = torch.utils.dlpack.to_dlpack(there)
    del x
    assert torch.equal(torch.utils.dlpack.from_dlpack(capsule).cpu(), there.cpu())
    with pytest.raises(RuntimeError, match=r"consume|used|once"):
        torch.utils.dlpack.from_dlpack(capsule)


def test_dlpack_of_the_cpu_is_torchs_own():
    x = torch.arange(3.0)
    assert torch.from_dlpack(x).data_ptr() == x.data_ptr()
