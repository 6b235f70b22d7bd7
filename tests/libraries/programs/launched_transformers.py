"""One rank of transformers' Trainer under torchrun: python launched_transformers.py DEVICE OUT"""

import os
import sys

import torch
from transformers import Trainer, TrainingArguments
from with_transformers import gpt2, prompt

device, out = sys.argv[1:]
rows = [{"input_ids": row, "labels": row} for row in prompt(24, 12)]
arguments = TrainingArguments(
    out, use_cpu=device == "cpu", max_steps=5, per_device_train_batch_size=4, logging_steps=1, report_to=[],
    save_strategy="no", disable_tqdm=True, learning_rate=1e-2, seed=7,
)  # fmt: skip
assert arguments.world_size == 2 and arguments.device.type == device
trainer = Trainer(gpt2(), arguments, train_dataset=rows)
trainer.train()
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
state = {k: v.cpu() for k, v in trainer.model.state_dict().items()}
torch.save([losses, state], os.path.join(out, f"{arguments.process_index}.pt"))
torch.distributed.destroy_process_group()
