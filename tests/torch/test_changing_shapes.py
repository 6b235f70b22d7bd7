"""A loop whose shapes change at every step asks the worker for no metadata: rules and Meta kernels foretell new sizes."""

import changing_shapes
import pytest
import torch
import torch.nn.functional as F
import waldo
from torch import nn
from waldo import _start


def layers():
    """{operator: how many plans were (learned, asked, conformed)}; see src/frontends/torch/layers.h."""
    return {op: tuple(counts[3:]) for op, counts in _start._native.layer_counts().items()}


def asked_by(function):
    """Which operators were asked for or conformed meanwhile, and how many asks there were."""
    torch.cuda.synchronize()
    before, asks = layers(), waldo.stats()["asks"]
    function()
    torch.cuda.synchronize()
    return {op: counts for op, counts in layers().items() if counts != before.get(op, (0, 0, 0))}, waldo.stats()[
        "asks"
    ] - asks


@pytest.mark.parametrize("name", changing_shapes.PROGRAMS)
def test_new_sizes_are_foretold(name):
    """Goal: after two sizes, three others ask nothing, and what was foretold is what the worker makes."""
    program = changing_shapes.PROGRAMS[name]
    for n in (4, 5):
        program(n)
    assert asked_by(lambda: [program(n) for n in (7, 8, 11)]) == ({}, 0)


class Decoder(nn.Module):
    """GPT-2's shape: learned positions, causal attention with a cache, a tied head."""

    def __init__(self, width=16, heads=2, tokens=40, positions=128):
        super().__init__()
        self.heads = heads
        self.tokens, self.positions = nn.Embedding(tokens, width), nn.Embedding(positions, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens, at, cache):
        x = self.tokens(tokens) + self.positions(at + torch.arange(tokens.shape[1], device=tokens.device))
        q, k, v = self.qkv(self.norms[0](x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        k, v, mask = cache(k, v, at)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
        x = x + self.down(F.gelu(self.up(self.norms[1](x))))
        return self.norms[2](x) @ self.tokens.weight.t()


class GrowingCache:
    def __init__(self):
        self.kept = None

    def __call__(self, k, v, at):
        self.kept = (
            (k, v) if self.kept is None else tuple(torch.cat(both, 2) for both in zip(self.kept, (k, v), strict=True))
        )
        return *self.kept, None


class StaticCache:
    def __init__(self, length=128):
        self.length, self.kept = length, None

    def __call__(self, k, v, at):
        if self.kept is None:
            self.kept = [torch.zeros(*k.shape[:2], self.length, k.shape[3], device=k.device) for _ in range(2)]
        places = torch.arange(at, at + k.shape[2], device=k.device)
        for cache, new in zip(self.kept, (k, v), strict=True):
            cache.index_copy_(2, places, new)
        return *self.kept, torch.arange(self.length, device=k.device) <= places[:, None]


@pytest.mark.parametrize("cache", [GrowingCache, StaticCache])
def test_decoding_with_a_cache_asks_nothing(cache):
    """Goal: a decode loop foretells each length of its cache; reading every token is one wait per token."""
    model = Decoder().cuda().eval()

    def decode(prompt, steps):
        kept, token, at, written = cache(), torch.randint(40, (2, prompt)).cuda(), 0, []
        with torch.no_grad():
            for _ in range(steps):
                logits = model(token, at, kept)
                at += token.shape[1]
                token = logits[:, -1].softmax(-1).multinomial(1)
                written.append(token[:, 0].tolist())  # what a stopping criterion looks at
        return written

    decode(3, 2)
    waits = waldo.stats()["waits"]
    assert asked_by(lambda: decode(5, 60)) == ({}, 0)
    assert waldo.stats()["waits"] - waits == 60 + 2  # and the two synchronisations of asked_by


def test_ragged_batches_ask_nothing():
    """Goal: training on batches of random lengths (padded, packed, concatenated) asks nothing once it is warm."""
    model = nn.ModuleDict(
        {
            "tokens": nn.Embedding(50, 16, padding_idx=0),
            "layers": nn.TransformerEncoder(
                nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, enable_nested_tensor=False
            ),
            "recurrent": nn.GRU(16, 16, batch_first=True),
            "head": nn.Linear(16, 50),
        }
    ).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    def step(generator):
        lengths = torch.randint(2, 40, (int(torch.randint(2, 7, (), generator=generator)),), generator=generator)
        rows = [
            torch.randint(1, 50, (int(length),), generator=generator) for length in lengths.sort(descending=True)[0]
        ]
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True).cuda()
        padding = tokens == 0
        x = model["layers"](model["tokens"](tokens), src_key_padding_mask=padding)
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([len(row) for row in rows]), batch_first=True)
        x = x + nn.utils.rnn.pad_packed_sequence(model["recurrent"](packed)[0], batch_first=True)[0]
        loss = F.cross_entropy(model["head"](x).transpose(1, 2), tokens, ignore_index=0)
        alone = F.cross_entropy(model["head"](model["tokens"](torch.cat(rows).cuda())), torch.cat(rows).cuda())
        (loss + alone).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        step(generator)
    waits = waldo.stats()["waits"]
    assert asked_by(lambda: [step(generator) for _ in range(12)]) == ({}, 0)
    assert waldo.stats()["waits"] - waits <= 2
