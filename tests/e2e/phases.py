"""A program of phases to be killed in. Says when each begins, then what came of it, bit for bit: phases.py"""

import time

import torch
from torch import nn

torch.manual_seed(0)
data = torch.randn(64, 32)
big = torch.randn(4 << 20)  # 16 MiB
square = torch.randn(256, 256) / 16


def begin(phase):
    print("phase", phase, flush=True)


def train():
    for _ in range(25):
        loss = model(data.cuda()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(loss.item().hex(), flush=True)


begin("first_use")
model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 8)).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
begin("train")
train()
begin("upload")
there = big.cuda()
print(there[::1000].sum().item().hex(), flush=True)
begin("compute")  # nobody waits while the worker works
x = square.cuda()
for _ in range(200):
    x = (x @ x).tanh()
print(x.sum().item().hex(), flush=True)
begin("download")
print(float((there * 2).cpu().sum()).hex(), flush=True)
begin("idle")
time.sleep(0.3)
print(x[0, 0].item().hex(), flush=True)
begin("train_again")
train()
begin("end")
