"""What Lightning starts again for its second rank: python launched_lightning.py DEVICE OUT"""

import os
import sys

import lightning
import torch
from with_lightning import Net, data, trainer

device, out = sys.argv[1:]
lightning.seed_everything(3, verbose=False)
net = Net()
run = trainer(device, out, devices=2, strategy="ddp", enable_checkpointing=False, gradient_clip_val=1.0)
run.fit(net, data(), data())
assert run.world_size == 2 and net.device.type == "cpu"  # it is moved back when fit() ends
found = [torch.stack(net.losses).cpu(), run.callback_metrics["accuracy"].cpu(), net.state_dict()]
torch.save(found, os.path.join(out, f"{run.global_rank}.pt"))
