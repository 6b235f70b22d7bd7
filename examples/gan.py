"""A small DCGAN that learns to draw digits.

    python examples/gan.py

The data are the 1,797 scans of handwritten digits (8 x 8 pixels) that ship inside scikit-learn. After every epoch the
picture out/gan.png gets one more row: what the generator makes of the same sixteen random vectors.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

LATENT = 32
COLUMNS = 16


class Generator(nn.Sequential):
    """Random vectors (n, LATENT) to pictures (n, 1, 8, 8) in -1 … 1."""

    def __init__(self, width=64):
        super().__init__(
            nn.Linear(LATENT, 2 * width * 2 * 2, bias=False),
            nn.Unflatten(1, (2 * width, 2, 2)),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),  # 4 x 4
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1, bias=False),  # 8 x 8
            nn.BatchNorm2d(width // 2),
            nn.ReLU(),
            nn.Conv2d(width // 2, 1, 3, padding=1),
            nn.Tanh(),
        )


class Discriminator(nn.Sequential):
    """Pictures (n, 1, 8, 8) to one logit each: large means real."""

    def __init__(self, width=32):
        super().__init__(
            nn.Conv2d(1, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False),  # 4 x 4
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1, bias=False),  # 2 x 2
            nn.BatchNorm2d(4 * width),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(4 * width * 2 * 2, 1),
            nn.Flatten(0),
        )


def init_weights(module):
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.05)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.05)


def digits():
    pictures = torch.tensor(load_digits().images, dtype=torch.float32) / 8 - 1
    return TensorDataset(pictures[:, None])


def save_rows(rows, path, scale=4, gap=1):
    """One row of pictures per epoch, white on black, with a thin grid between them."""
    tiles = np.stack([row[:, 0].numpy() for row in rows])  # epochs, columns, 8, 8
    tiles = np.pad((tiles + 1) / 2, ((0, 0), (0, 0), (gap, 0), (gap, 0)), constant_values=0.35)
    epochs, columns, height, width = tiles.shape
    sheet = tiles.transpose(0, 2, 1, 3).reshape(epochs * height, columns * width)
    sheet = np.pad(sheet, ((0, gap), (0, gap)), constant_values=0.35)
    picture = Image.fromarray((sheet.clip(0, 1) * 255).round().astype(np.uint8))
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/gan.png"), help="the picture (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the losses of every epoch there")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    loader = DataLoader(digits(), args.batch_size, shuffle=True, drop_last=True, pin_memory=device.type == "cuda")
    generator = Generator().apply(init_weights).to(device)
    discriminator = Discriminator().apply(init_weights).to(device)
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=args.lr, betas=(0.5, 0.999))
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), lr=args.lr, betas=(0.5, 0.999))
    fixed_noise = torch.randn(COLUMNS, LATENT).to(device)

    history, rows = [], []
    for epoch in range(1, args.epochs + 1):
        generator.train()
        losses = torch.zeros(2, device=device)  # stays on the device; read once per epoch
        bar = tqdm(loader, desc=f"epoch {epoch:3}/{args.epochs}", unit="step", dynamic_ncols=True)
        for step, (real,) in enumerate(bar, 1):
            real = real.to(device, non_blocking=True)
            noise = torch.randn(len(real), LATENT).to(device)
            fake = generator(noise)

            real_logits = discriminator(real)
            fake_logits = discriminator(fake.detach())
            smooth = torch.full_like(real_logits, 0.9)
            discriminator_loss = F.binary_cross_entropy_with_logits(real_logits, smooth)
            discriminator_loss = discriminator_loss + F.binary_cross_entropy_with_logits(
                fake_logits, torch.zeros_like(fake_logits)
            )
            discriminator_optimizer.zero_grad()
            discriminator_loss.backward()
            discriminator_optimizer.step()

            logits = discriminator(fake)
            generator_loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
            generator_optimizer.zero_grad()
            generator_loss.backward()
            generator_optimizer.step()

            losses += torch.stack([discriminator_loss.detach(), generator_loss.detach()])
            if step == len(loader):
                mean = [value / len(loader) for value in losses.tolist()]
                bar.set_postfix(loss_d=f"{mean[0]:.3f}", loss_g=f"{mean[1]:.3f}")
        history.append({"discriminator": mean[0], "generator": mean[1]})

        generator.eval()
        with torch.no_grad():
            rows.append(generator(fixed_noise).cpu())
        save_rows(rows, args.out)

    final = history[-1]
    print(f"device {device}: discriminator loss {final['discriminator']:.4f}, generator loss {final['generator']:.4f}")
    print(f"picture: {args.out}")
    if args.json:
        args.json.write_text(json.dumps({"device": str(device), "final": final, "epochs": history}, indent=1))


if __name__ == "__main__":
    main()
