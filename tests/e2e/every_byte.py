"""One session, one small training again and again, and a link that is cut after one more byte each time.

WALDO_ON=unix:OURS every_byte.py THEIRS [STRIDE]: THEIRS is a daemon's socket. The program reaches it through OURS, which it
serves itself: it counts bytes and cuts. Prints what it did; exit code 1 when a loss differs in any bit from that of the
first, undisturbed trainings.
"""

import os
import socket
import sys
import threading

import torch
from torch import nn

FAR = sys.argv[1]
STRIDE = int(sys.argv[2]) if len(sys.argv) > 2 else 1
UNCUT = 8  # trainings that are not disturbed: plans are defined, counts settle
UP, DOWN = 0, 1


class Way:
    """The way to the daemon. cut_after(direction, n): the link of now ends when n more bytes have gone that way."""

    def __init__(self, near):
        self.lock = threading.Lock()
        self.passed = [0, 0]
        self.cut = None  # (direction, bytes left)
        self.links = self.cuts = 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(near)
        self.listener.listen(8)
        threading.Thread(target=self.accept, daemon=True).start()

    def cut_after(self, direction, count):
        with self.lock:
            self.cut = [direction, count]

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            far = socket.socket(socket.AF_UNIX)
            far.connect(FAR)
            self.links += 1
            threading.Thread(target=self.carry, args=(near, far, UP), daemon=True).start()
            threading.Thread(target=self.carry, args=(far, near, DOWN), daemon=True).start()

    def allowed(self, direction, count):
        """How many of these bytes go through, and whether the link ends behind them."""
        with self.lock:
            cuts = self.cut is not None and self.cut[0] == direction and count >= self.cut[1]
            if cuts:
                count, self.cut = self.cut[1], None
                self.cuts += 1
            elif self.cut is not None and self.cut[0] == direction:
                self.cut[1] -= count
            self.passed[direction] += count
            return count, cuts

    def carry(self, source, target, direction):
        try:
            while data := source.recv(1 << 16):
                count, cuts = self.allowed(direction, len(data))
                target.sendall(data[:count])
                if cuts:
                    break
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def train():
    """Three steps; every bit of what they gave."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(3):
        x = torch.randn(8, 4)
        loss = (model(x.cuda()) - x[:, :2].cuda()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item().hex())
    return losses


way = Way(os.environ["WALDO_ON"].removeprefix("unix:"))
expected = train()
for _ in range(UNCUT - 1):
    assert train() == expected
    one = list(way.passed)
    way.passed[:] = [0, 0]
print(f"a training: {one[UP]} bytes up, {one[DOWN]} down", flush=True)
different = []
for direction, name in ((UP, "up"), (DOWN, "down")):
    for byte in range(0, one[direction], STRIDE):
        way.cut_after(direction, byte)
        while (
            way.cut is not None
        ):  # a training may take fewer bytes, as its calls happen to be bundled: then in the next
            if (losses := train()) != expected:
                different.append(f"cut after {byte} bytes {name}: {losses}, not {expected}")
print(f"{way.cuts} cuts, {way.links} links, {len(different)} trainings with other losses")
print("\n".join(different))
sys.exit(1 if different else 0)
