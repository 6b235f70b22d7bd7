"""A convolutional network that reads handwritten digits.

    python examples/cnn_digits.py

The data are the 1,797 scans of digits (8 x 8 pixels) that ship inside scikit-learn; a fifth of them is kept for the test.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm


class Net(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.classify = nn.Linear(2 * width, 10)

    def forward(self, pictures):
        return self.classify(self.features(pictures).flatten(1))


def load():
    data = load_digits()
    pictures = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels))
    train, test = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    return TensorDataset(pictures[train], labels[train]), TensorDataset(pictures[test], labels[test])


@torch.no_grad()
def accuracy(model, loader, device):
    model.eval()
    right = torch.zeros((), dtype=torch.long, device=device)
    for pictures, labels in loader:
        right += (model(pictures.to(device)).argmax(1) == labels.to(device)).sum()
    return right.item() / len(loader.dataset)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=0, help="processes that load data (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the losses of every epoch there")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    options = {"num_workers": args.workers, "pin_memory": device.type == "cuda"}
    train, test = load()
    train_loader = DataLoader(train, args.batch_size, shuffle=True, **options)
    test_loader = DataLoader(test, 256, **options)

    model = Net().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr * 25, momentum=0.9, weight_decay=1e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)

    history = []
    for epoch in range(1, args.epochs + 1):
        model.train()
        total = 0.0
        bar = tqdm(train_loader, desc=f"epoch {epoch:3}/{args.epochs}", unit="step", dynamic_ncols=True)
        for pictures, labels in bar:
            pictures, labels = pictures.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            loss = F.cross_entropy(model(pictures), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            bar.set_postfix(loss=f"{total / len(train):.3f}", refresh=False)
        schedule.step()
        history.append({"loss": total / len(train), "accuracy": accuracy(model, test_loader, device)})

    final = history[-1]
    print(f"device {device}: training loss {final['loss']:.4f}, test accuracy {final['accuracy']:.2%}")
    if args.json:
        args.json.write_text(json.dumps({"device": str(device), "final": final, "epochs": history}, indent=1))


if __name__ == "__main__":
    main()
