"""A small training whose every loss is printed bit for bit, to be disturbed: train.py STEPS [STOP_FILE]."""

import os
import sys

import torch
from torch import nn

steps = int(sys.argv[1])
stop = sys.argv[2] if len(sys.argv) > 2 else ""
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 8)).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
print("ready", flush=True)
for step in range(steps):
    x = torch.randn(64, 32)
    loss = (model(x.cuda()) - x[:, :8].cuda()).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item().hex(), flush=True)
    if stop and os.path.exists(stop):
        break
