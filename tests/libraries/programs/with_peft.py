"""Hugging Face peft (LoRA)"""

import tempfile

import torch
from common import grouped_attention, seeded
from peft import LoraConfig, PeftModel, get_peft_model
from with_transformers import llama, prompt


def adapted(device):
    base = llama().to(device)
    seeded(2)
    return get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], lora_dropout=0.0))


def train(model, device, steps=4):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    losses = []
    for step in range(steps):
        tokens = prompt(3, 8 + step).to(device)
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def check_lora(device):
    """LoRA on Llama: four steps; the base stays as it was"""
    with grouped_attention(device):
        model = adapted(device)
        base = {k: v.clone() for k, v in model.state_dict().items() if "lora" not in k}
        losses = train(model, device)
        assert all(torch.equal(v, model.state_dict()[k]) for k, v in base.items())
        return [losses, {k: v for k, v in model.state_dict().items() if "lora" in k}]


def check_saved_and_merged(device):
    """save_pretrained, PeftModel.from_pretrained, merge_and_unload, generate"""
    with grouped_attention(device):
        with tempfile.TemporaryDirectory() as folder:
            model = adapted(device)
            train(model, device, 2)
            model.save_pretrained(folder)
            loaded = PeftModel.from_pretrained(llama().to(device), folder)
            tokens = prompt().to(device)
            with torch.no_grad():
                same = loaded(tokens).logits
                merged = loaded.merge_and_unload()
                return [same, merged(tokens).logits, merged.generate(tokens, max_new_tokens=8, do_sample=False)]
