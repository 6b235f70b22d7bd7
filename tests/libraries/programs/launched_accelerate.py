"""One rank of `accelerate launch`: python launched_accelerate.py DEVICE OUT"""

import os
import sys

import torch
from accelerate import Accelerator
from with_accelerate import train

device, out = sys.argv[1:]
accelerator, network, losses = train(device, gradient_accumulation_steps=2)
assert accelerator.num_processes == 2 and accelerator.device.type == device
gathered = accelerator.gather(torch.full((2,), accelerator.process_index, device=accelerator.device))
accelerator.wait_for_everyone()
found = [losses, gathered.cpu(), {k: v.cpu() for k, v in accelerator.unwrap_model(network).state_dict().items()}]
torch.save(found, os.path.join(out, f"{accelerator.process_index}.pt"))
Accelerator().end_training()
