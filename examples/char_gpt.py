"""A small GPT that learns to write, letter by letter, like Python's own help texts.

    python examples/char_gpt.py

The text is what `help("keywords")` and its like print: it ships with Python as pydoc_data.topics.
"""

import argparse
import json
import math
from pathlib import Path
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm


class Block(nn.Module):
    """Causal self-attention, then a two-layer perceptron, each on a residual path."""

    def __init__(self, width, heads, context):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.register_buffer("future", torch.ones(context, context, dtype=torch.bool).triu(1), persistent=False)

    def attention(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
        scores = scores.masked_fill(self.future[:length, :length], float("-inf"))
        return self.project((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))

    def forward(self, x):
        x = x + self.attention(self.norm_attention(x))
        return x + self.mlp(self.norm_mlp(x))


class GPT(nn.Module):
    def __init__(self, symbols, context, width, layers, heads):
        super().__init__()
        self.context = context
        self.token, self.position = nn.Embedding(symbols, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads, context) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, symbols, bias=False)

    def forward(self, tokens):
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.blocks(self.token(tokens) + self.position(positions))))

    @torch.no_grad()
    def write(self, tokens, count, temperature=0.7):
        """`tokens` (1, n) and `count` more. The dice are thrown on the CPU, alike for every device."""
        for _ in range(count):
            logits = self(tokens[:, -self.context :])[:, -1] / temperature
            following = torch.multinomial(logits.softmax(-1).cpu(), 1)
            tokens = torch.cat([tokens, following.to(tokens.device)], dim=1)
        return tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200, help="per epoch (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the losses of every epoch there")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    text = "\n".join(topics[name] for name in sorted(topics))
    symbols = sorted(set(text))
    number = {symbol: i for i, symbol in enumerate(symbols)}
    data = torch.tensor([number[symbol] for symbol in text])

    model = GPT(len(symbols), args.context, args.width, args.layers, args.heads).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.epochs * args.steps)
    window = torch.arange(args.context + 1)

    history = []
    for epoch in range(1, args.epochs + 1):
        total = torch.zeros((), device=device)
        bar = tqdm(range(args.steps), desc=f"epoch {epoch:3}/{args.epochs}", unit="step", dynamic_ncols=True)
        for step in bar:
            starts = torch.randint(len(data) - args.context - 1, (args.batch_size, 1))
            batch = data[starts + window].to(device, non_blocking=True)
            logits = model(batch[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.detach()
            if step + 1 == args.steps:
                bar.set_postfix(loss=f"{total.item() / args.steps:.3f}")
        history.append({"loss": total.item() / args.steps})

    prompt = torch.tensor([[number[symbol] for symbol in "The "]], device=device)
    print("".join(symbols[i] for i in model.write(prompt, 200)[0].tolist()))
    print(f"device {device}: loss {history[-1]['loss']:.4f} per letter")
    if args.json:
        args.json.write_text(json.dumps({"device": str(device), "final": history[-1], "epochs": history}, indent=1))


if __name__ == "__main__":
    main()
