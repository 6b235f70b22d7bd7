"""Steps of DDP, each of which reads its loss."""

import torch
from ddp import Net, train
from ranks import main


def results(rank, size):
    torch.manual_seed(5)
    losses = []

    def forward(model, x, _step):
        loss = model(x).square().mean()
        losses.append(loss.item())
        return loss

    return {"losses": losses, "model": train(rank, size, Net(), steps=40, forward=forward)}


if __name__ == "__main__":
    main(results)
