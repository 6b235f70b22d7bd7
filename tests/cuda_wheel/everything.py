"""A program that uses much of torch.cuda: run under a driver that writes down who asks for it (test_cuda_wheel.py)."""

import io
import warnings

import torch
from torch import nn

warnings.simplefilter("error")
warnings.filterwarnings("ignore", "(?s).*(beta state|deprecated|Profiler clears|prototype).*")  # PyTorch's own
assert torch.cuda.is_available()
assert torch.cuda.device_count() == 2
torch.cuda.init()
print(torch.cuda.get_device_name(), torch.cuda.get_device_capability(), torch.cuda.get_device_properties(0))

model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).cuda()
data = torch.randn(8, 3, 8, 8).pin_memory().cuda(non_blocking=True)
model(data)
optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
scaler = torch.amp.GradScaler("cuda")
for _ in range(3):
    with torch.autocast("cuda", torch.bfloat16):
        loss = nn.functional.cross_entropy(model(data), torch.arange(8, device="cuda") % 5)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
print(loss.item())

query = torch.randn(2, 4, 6, 8, device="cuda", requires_grad=True)
nn.functional.scaled_dot_product_attention(query, query, query, is_causal=True).sum().backward()
lstm = nn.LSTM(4, 6, 2).cuda()
lstm(torch.randn(5, 2, 4, device="cuda"))[0].sum().backward()
nn.Transformer(8, 2, 1, 1, 16, batch_first=True).cuda()(*[torch.randn(2, 5, 8, device="cuda")] * 2).sum().backward()
nn.RMSNorm(8).cuda()(query).sum().backward()
print(torch.linalg.svdvals(torch.randn(4, 4, device="cuda")).shape, torch.fft.rfft(data).shape)
print(torch.linalg.inv(torch.eye(3, device="cuda")).sum().item())
print((torch.eye(3, device="cuda").to_sparse() @ torch.ones(3, 3, device="cuda")).sum().item())
print((torch.eye(3, device="cuda").to_sparse_csr() @ torch.ones(3, 3, device="cuda")).sum().item())
print(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], device="cuda", layout=torch.jagged).sum().item())

stream, event, later = torch.cuda.Stream(), *(torch.cuda.Event(enable_timing=True) for _ in range(2))
with torch.cuda.stream(stream):
    event.record()
    (data + 1).sum()
    later.record()
torch.cuda.current_stream().wait_stream(stream)
torch.cuda.synchronize()
assert event.elapsed_time(later) >= 0
print(torch.cuda.memory_allocated() > 0, torch.cuda.mem_get_info()[1] > 0, len(torch.cuda.memory_summary()) > 0)
torch.cuda.empty_cache()
torch.cuda.reset_peak_memory_stats()

state = torch.cuda.get_rng_state()
first = torch.rand(3, device="cuda")
torch.cuda.set_rng_state(state)
assert torch.equal(first, torch.rand(3, device="cuda"))
generator = torch.Generator("cuda").manual_seed(3)
torch.randn(2, device="cuda", generator=generator)

file = io.BytesIO()
torch.save({"model": model.state_dict(), "x": data}, file)
file.seek(0)
assert torch.load(file, map_location="cuda:1")["x"].device.index == 1
storage = torch.UntypedStorage(8, device="cuda")
storage.fill_(3)
storage.resize_(16)
assert storage.tolist()[:8] == [3] * 8
assert torch.from_dlpack(torch.arange(3, device="cuda")).tolist() == [0, 1, 2]
torch.cuda.FloatTensor([1, 2])

graph = torch.cuda.CUDAGraph()
static = torch.zeros(3, device="cuda")
with torch.cuda.graph(graph):
    result = static + 1
static.fill_(4)
graph.replay()
assert result.tolist() == [5, 5, 5]

parallel = nn.DataParallel(nn.Linear(3, 2).cuda())
assert parallel(torch.randn(5, 3).cuda()).shape == (5, 2)
loader = torch.utils.data.DataLoader(torch.arange(8), 4, num_workers=1, pin_memory=True)
assert sum(int(batch.cuda().sum()) for batch in loader) == 28


@torch.jit.script
def scripted(x):
    return (x * 2 + 1).relu().sum()


for _ in range(4):  # TorchScript's fuser looks at the third call
    assert scripted(torch.ones(3, device="cuda", requires_grad=True)).item() == 9

assert torch.func.vmap(lambda x: x.sum())(torch.ones(2, 3, device="cuda")).tolist() == [3, 3]
with torch.profiler.profile() as profile:
    (data + 1).sum().item()
assert any(event.device_time_total > 0 for event in profile.key_averages())
print(
    torch.backends.cudnn.version(),
    torch.backends.cuda.is_built(),
    torch.cuda.nccl.version(),
    torch.cuda.get_arch_list(),
)
print("all done")
