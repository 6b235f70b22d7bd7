"""PyTorch Lightning"""

import logging
import tempfile
import warnings

import lightning
import torch
from common import two_processes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")

DIFFERENT = {
    "check_bf16": (5e-3, "autocast on CUDA keeps other operators in float32 (layer_norm) than on the CPU"),
}


class Net(lightning.LightningModule):
    def __init__(self, width=16):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(8, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 3))
        self.losses = []

    def training_step(self, batch, _):
        x, y = batch
        loss = nn.functional.cross_entropy(self.layers(x), y)
        self.log("train_loss", loss)
        self.losses.append(loss.detach())
        return loss

    def validation_step(self, batch, _):
        x, y = batch
        self.log("accuracy", (self.layers(x).argmax(1) == y).float().mean())

    def predict_step(self, batch, _):
        return self.layers(batch[0])

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 1e-2)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)}


def data(shuffle=False):
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(6)
    return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), 8, shuffle=shuffle, generator=generator)


def trainer(device, folder, devices=1, **how):
    accelerator = {"cuda": "gpu", "cpu": "cpu"}[device]
    return lightning.Trainer(
        accelerator=accelerator, devices=devices, max_epochs=2, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, **how,
    )  # fmt: skip


def fit(device, **how):
    lightning.seed_everything(3, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        net = Net()
        run = trainer(device, folder, enable_checkpointing=False, gradient_clip_val=1.0, **how)
        run.fit(net, data(shuffle=True), data())
        return [torch.stack(net.losses), run.callback_metrics["accuracy"], net.state_dict()]


def check_fit(device):
    """Trainer(accelerator="gpu", devices=1): fit with validation, clipping and a schedule"""
    return fit(device)


def check_bf16(device):
    """Trainer(precision="bf16-mixed")"""
    return fit(device, precision="bf16-mixed")[0]


def only_cuda_fp16(device):
    """Trainer(precision="16-mixed"): it learns"""
    losses = fit(device, precision="16-mixed")[0]
    assert losses[-5:].mean() < losses[:5].mean()


def check_checkpoint(device):
    """ModelCheckpoint, load_from_checkpoint, resumed fit, predict"""
    lightning.seed_everything(3, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        saved = lightning.pytorch.callbacks.ModelCheckpoint(folder, save_last=True)
        trainer(device, folder, callbacks=[saved]).fit(Net(), data(), data())
        again = Net()
        run = trainer(device, folder, enable_checkpointing=False)
        run.fit_loop.max_epochs = 3
        run.fit(again, data(), data(), ckpt_path=saved.last_model_path, weights_only=False)
        loaded = Net.load_from_checkpoint(saved.last_model_path, weights_only=False)
        return [again.state_dict(), loaded.state_dict(), trainer(device, folder).predict(again, data())]


def check_ddp(device):
    """Trainer(accelerator="gpu", devices=2, strategy="ddp"): fit with validation and clipping"""
    return two_processes(device, "launched_lightning.py")
