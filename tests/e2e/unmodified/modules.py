"""Layers, losses and optimizers: forward, backward and steps are bit-equal to the CPU's."""

import torch
import torch.nn.functional as F
from torch import nn


def forward_and_backward(module, *inputs, device):
    module = module.to(device)
    inputs = [x.to(device) for x in inputs]
    inputs = [x.requires_grad_() if x.is_floating_point() else x for x in inputs]
    y = module(*inputs)
    y.square().sum().backward()
    return [y, [x.grad for x in inputs], [p.grad for p in module.parameters()], list(module.buffers())]


def check_linear(device):
    return forward_and_backward(nn.Linear(7, 5), torch.randn(3, 4, 7), device=device)


def check_conv(device):
    out = [forward_and_backward(nn.Conv1d(3, 4, 3, padding=1), torch.randn(2, 3, 9), device=device)]
    out += [forward_and_backward(nn.Conv2d(3, 8, 3, stride=2), torch.randn(2, 3, 9, 9), device=device)]
    out += [forward_and_backward(nn.Conv2d(4, 4, 3, groups=2, bias=False), torch.randn(2, 4, 6, 6), device=device)]
    out += [forward_and_backward(nn.Conv3d(2, 3, 2), torch.randn(1, 2, 4, 4, 4), device=device)]
    out += [
        forward_and_backward(nn.ConvTranspose2d(3, 2, 4, stride=2, padding=1), torch.randn(2, 3, 4, 4), device=device)
    ]
    return out


def check_conv_channels_last(device):
    module = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 9, 9).contiguous(memory_format=torch.channels_last)
    return forward_and_backward(module, x, device=device)


def check_norms(device):
    out = []
    for module, shape in ((nn.BatchNorm1d(4), (6, 4)), (nn.BatchNorm2d(3), (2, 3, 5, 5)), (nn.LayerNorm(6), (3, 6)),
                          (nn.GroupNorm(2, 4), (2, 4, 5)), (nn.InstanceNorm2d(3), (2, 3, 4, 4)), (nn.RMSNorm(6), (3, 6))):  # fmt: skip
        out.append(forward_and_backward(module, torch.randn(shape), device=device))
        out.append(forward_and_backward(module.eval(), torch.randn(shape), device=device))
    return out


def check_embedding(device):
    tokens = torch.randint(9, (4, 6))
    out = [forward_and_backward(nn.Embedding(9, 5, padding_idx=0), tokens, device=device)]
    out += [forward_and_backward(nn.EmbeddingBag(9, 5, mode="mean"), tokens, device=device)]
    return out


def check_pooling_and_activations(device):
    x = torch.randn(2, 3, 8, 8)
    modules = [nn.MaxPool2d(2), nn.AvgPool2d(3), nn.AdaptiveAvgPool2d(2), nn.ReLU(), nn.GELU(), nn.SiLU(), nn.ELU(), nn.LeakyReLU(0.1),
               nn.Softplus(), nn.Hardswish(), nn.Sigmoid(), nn.Tanh(), nn.Softmax(1), nn.LogSoftmax(1), nn.PReLU(), nn.Upsample(scale_factor=2),
               nn.Upsample(scale_factor=2, mode="bilinear"), nn.PixelShuffle(1), nn.ZeroPad2d(1), nn.ReflectionPad2d(1)]  # fmt: skip
    return [forward_and_backward(module, x.clone(), device=device) for module in modules]


def check_losses(device):
    x, y, labels = torch.randn(6, 4).to(device), torch.randn(6, 4).to(device), torch.randint(4, (6,)).to(device)
    out = []
    for loss in (
        lambda a: F.cross_entropy(a, labels),
        lambda a: F.cross_entropy(a, labels, label_smoothing=0.1, reduction="sum"),
        lambda a: F.nll_loss(a.log_softmax(1), labels),
        lambda a: F.mse_loss(a, y),
        lambda a: F.l1_loss(a, y),
        lambda a: F.smooth_l1_loss(a, y),
        lambda a: F.huber_loss(a, y),
        lambda a: F.binary_cross_entropy_with_logits(a, y.sigmoid()),
        lambda a: F.binary_cross_entropy(a.sigmoid(), y.sigmoid()),
        lambda a: F.kl_div(a.log_softmax(1), y.softmax(1), reduction="batchmean"),
        lambda a: F.cosine_embedding_loss(a, y, labels.sign().clamp(min=1)),
        lambda a: F.triplet_margin_loss(a, y, y.flip(0)),
    ):
        a = x.clone().requires_grad_()
        value = loss(a)
        value.backward()
        out += [value, a.grad]
    return out


def check_ctc_loss(device):
    scores = torch.randn(12, 3, 6).to(device).requires_grad_()
    targets, lengths = torch.randint(1, 6, (3, 4)), torch.tensor([4, 3, 2])
    value = F.ctc_loss(scores.log_softmax(2), targets.to(device), torch.tensor([12, 11, 9]), lengths)
    value.backward()
    return [value, scores.grad]


def fused_lstm_layer(x, h, c, w_ih, w_hh, b_ih, b_hh):
    """One layer of LSTM in CUDA's decomposition, which has a cell of its own: (h U + d) + (x W + b), gates i f g o."""
    out = []
    projected = [step.matmul(w_ih.t()) for step in x.unbind(0)]
    for gates in projected:
        i, f, g, o = ((h.matmul(w_hh.t()) + b_hh) + (gates + b_ih)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        out.append(h)
    return torch.stack(out), h, c


def check_lstm_forward(device):
    """Bit-equal to CUDA's decomposition written out on the CPU; close to the CPU's own LSTM."""
    lstm = nn.LSTM(5, 6, num_layers=2)
    x = torch.randn(4, 3, 5)
    with torch.no_grad():
        if device.startswith("cuda"):
            close = lstm(x)[0]
            lstm = lstm.to(device)
            y, (h, c) = lstm(x.to(device))
            torch.testing.assert_close(y.cpu(), close, rtol=1e-5, atol=1e-6)
        else:
            y, hs, cs = x, [], []
            for layer in range(2):
                weights = [getattr(lstm, f"{n}_l{layer}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
                y, h, c = fused_lstm_layer(y, torch.zeros(3, 6), torch.zeros(3, 6), *weights)
                hs.append(h)
                cs.append(c)
            h, c = torch.stack(hs), torch.stack(cs)
    return [y, h, c]


def only_cuda_recurrent_layers_learn_as_on_the_cpu(device):
    """Other decompositions than the CPU's: equal to rounding."""
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        ours = kind(5, 6, num_layers=2, batch_first=True, bidirectional=kind is nn.LSTM)
        reference = kind(5, 6, num_layers=2, batch_first=True, bidirectional=kind is nn.LSTM)
        reference.load_state_dict(ours.state_dict())
        ours = ours.to(device)
        x = torch.randn(3, 7, 5)
        for module, value in ((ours, x.to(device)), (reference, x)):
            module(value)[0].square().sum().backward()
        for p, q in zip(ours.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(p.grad.cpu(), q.grad, rtol=1e-4, atol=1e-5)


def check_packed_sequence(device):
    x = [torch.randn(n, 4).to(device) for n in (5, 3, 2)]
    packed = nn.utils.rnn.pack_sequence(x)
    padded, lengths = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
    return [packed.data, padded, lengths]


def check_attention(device):
    out = []
    for causal in (False, True):
        q, k, v = (torch.randn(2, 3, 6, 4).to(device).requires_grad_() for _ in range(3))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        y.square().sum().backward()
        out += [y, q.grad, k.grad, v.grad]
    return out


def check_transformer(device):
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return forward_and_backward(layer, torch.randn(2, 5, 8), device=device)


def train(device, make_optimizer, steps=5, schedule=None):
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10), nn.LayerNorm(10)
    ).to(device)
    optimizer = make_optimizer(model.parameters())
    scheduler = schedule(optimizer) if schedule else None
    losses = []
    for _ in range(steps):
        x, labels = torch.randn(6, 1, 8, 8).to(device), torch.randint(10, (6,)).to(device)
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        if scheduler:
            scheduler.step()
        losses.append(loss.item())
    state = [{k: v for k, v in s.items() if k != "step"} for s in optimizer.state_dict()["state"].values()]
    return [
        losses,
        model.state_dict(),
        state,
        [float(s["step"]) for s in optimizer.state_dict()["state"].values() if "step" in s],
    ]


def check_optimizer_sgd(device):
    return [
        train(device, lambda p: torch.optim.SGD(p, lr=0.1)),
        train(device, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)),
        train(device, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True)),
        train(device, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=False)),
        train(device, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True)),
    ]


def check_optimizer_adam(device):
    return [
        train(device, lambda p, o=o: torch.optim.Adam(p, lr=0.01, **o))
        for o in ({}, {"foreach": True}, {"foreach": False}, {"fused": True}, {"amsgrad": True})
    ]


def check_optimizer_adamw(device):
    return [
        train(device, lambda p, o=o: torch.optim.AdamW(p, lr=0.01, **o))
        for o in ({}, {"foreach": True}, {"foreach": False}, {"fused": True}, {"weight_decay": 0.3})
    ]


def check_optimizer_others(device):
    kinds = (
        torch.optim.RMSprop,
        torch.optim.Adagrad,
        torch.optim.Adamax,
        torch.optim.NAdam,
        torch.optim.RAdam,
        torch.optim.Adadelta,
        torch.optim.Rprop,
    )
    # foreach is what CUDA takes by itself, and not the same arithmetic as the loop that the CPU takes.
    return [train(device, lambda p, kind=kind: kind(p, lr=0.01, foreach=True), steps=3) for kind in kinds]


def check_schedules(device):
    return [
        train(
            device, lambda p: torch.optim.SGD(p, lr=0.1), schedule=lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5)
        ),
        train(
            device,
            lambda p: torch.optim.AdamW(p, lr=0.1),
            schedule=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 5),
        ),
        train(
            device,
            lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
            schedule=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
        ),
    ]


def check_a_bare_loop(device):
    """No module, no optimizer: tensors only."""
    x, y = torch.randn(20, 3).to(device), torch.randn(20).to(device)
    w = torch.zeros(3, device=device, requires_grad=True)
    for _ in range(20):
        ((x @ w - y) ** 2).mean().backward()
        with torch.no_grad():
            w -= 0.1 * w.grad
            w.grad = None
    return [w]


def check_autocast_and_grad_scaler(device):
    """CUDA's autocast lists, written out by hand on the CPU: linear in half, the loss in float."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    kind = torch.device(device).type
    scaler = torch.amp.GradScaler(kind, init_scale=2.0**12)
    losses = []
    for _ in range(4):
        x, y = torch.randn(6, 8).to(device), torch.randn(6, 4).to(device)
        if kind == "cuda":
            with torch.autocast("cuda", dtype=torch.float16):
                out = model(x)
                assert out.dtype == torch.float16
                loss = F.mse_loss(out, y)
        else:
            out = F.linear(x.half(), model[0].weight.half(), model[0].bias.half()).relu()
            out = F.linear(out, model[2].weight.half(), model[2].bias.half())
            loss = F.mse_loss(out.float(), y)
        assert loss.dtype == torch.float32
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return [losses, model.state_dict(), scaler.get_scale()]


def only_cuda_grad_scaler_skips_an_overflow(device):
    w = torch.ones(3, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=1.0)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**16)
    scaler.scale((w * 1e38).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert w.tolist() == [1, 1, 1]
    assert scaler.get_scale() == 2.0**15


def only_cuda_autocast_bfloat16(device):
    with torch.autocast("cuda", dtype=torch.bfloat16):
        x = torch.randn(4, 4, device="cuda")
        assert torch.is_autocast_enabled("cuda")
        assert (x @ x).dtype == torch.bfloat16
        assert x.softmax(-1).dtype == torch.float32
