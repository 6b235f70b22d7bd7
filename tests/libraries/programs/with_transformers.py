"""Hugging Face transformers"""

import tempfile

import torch
from common import TORCHRUN, counted, grouped_attention, seeded, two_processes
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    StaticCache,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    pipeline,
)

DIFFERENT = {
    "check_trainer_bf16": (
        1e-3,
        "autocast on CUDA keeps other operators in float32 (layer_norm, softmax) than on the CPU",
    ),
}

WORDS = "the a cat dog sat ran on under mat tree and then it was big small red".split()


def gpt2(**more):
    seeded()
    none = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    config = GPT2Config(
        vocab_size=64, n_positions=160, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=None, **none, **more
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def llama():
    seeded()
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=160, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def bert_config(**more):
    return BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=40,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **more,
    )  # fmt: skip


def tokenizer():
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[BOS]", "[UNK]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", bos_token="[BOS]", unk_token="[UNK]")


def prompt(batch=2, length=7):
    return torch.randint(2, 64, (batch, length), generator=torch.Generator().manual_seed(3))


def train(model, device, steps=3, make=None):
    """A few steps as one writes them by hand: losses and weights."""
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for step in range(steps):
        tokens = prompt(3, 9 + step).to(device)
        loss = make(model, tokens) if make else model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return [losses, model.state_dict()]


def check_gpt2_trains(device):
    """GPT-2: three AdamW steps with clipping"""
    return train(gpt2(), device)


def check_llama_trains(device):
    """Llama (grouped queries, rotary positions): three AdamW steps"""
    with grouped_attention(device):
        return train(llama(), device)


def check_bert_trains(device):
    """BERT for classification, padded batches: three AdamW steps"""

    def make(model, tokens):
        mask = torch.ones_like(tokens)
        mask[0, -3:] = 0
        return model(input_ids=tokens, attention_mask=mask, labels=tokens[:, 0] % 2).loss

    seeded()
    return train(BertForSequenceClassification(bert_config(num_labels=2)), device, make=make)


def check_vit_trains(device):
    """ViT for image classification: three AdamW steps"""
    seeded()
    config = ViTConfig(
        image_size=16, patch_size=4, num_channels=3, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    pictures = torch.randn(3, 3, 16, 16)

    def make(model, tokens):
        return model(pixel_values=pictures.to(device), labels=tokens[:, 0] % 3).loss

    return train(ViTForImageClassification(config), device, make=make)


def generate(model, device, **how):
    model, tokens = model.to(device), prompt().to(device)
    seeded(5)
    return model.generate(tokens, max_new_tokens=24, min_new_tokens=24, **how)


def check_generate_greedy(device):
    """generate, greedy, with KV cache: GPT-2 and Llama"""
    return [generate(gpt2(), device, do_sample=False), generate(llama(), device, do_sample=False)]


def check_generate_beam(device):
    """generate, 3 beams: GPT-2 and Llama"""
    return [generate(model, device, do_sample=False, num_beams=3) for model in (gpt2(), llama())]


def check_generate_sample(device):
    """generate, sampling (temperature, top-k, top-p), same seed: same tokens"""
    return generate(llama(), device, do_sample=True, temperature=0.8, top_k=20, top_p=0.9)


def check_generate_static_cache(device):
    """generate with a static KV cache: Llama"""
    return generate(llama(), device, do_sample=False, cache_implementation="static", disable_compile=True)


def check_generate_padded(device):
    """generate for prompts of different lengths, padded on the left"""
    model, tokens = gpt2().to(device), prompt().to(device)
    mask = torch.ones_like(tokens)
    mask[0, :3] = 0
    with torch.no_grad():
        return model.generate(tokens, attention_mask=mask, max_new_tokens=10, do_sample=False)


def only_cuda_generate_waits_once_per_token(device):
    """generate 100 tokens: one wait per token (the stopping criterion is read), three to begin, no metadata asked for"""
    for model in (gpt2().to(device), llama().to(device)):
        for how in ({"do_sample": False}, {"do_sample": True, "top_k": 20}):
            tokens = prompt().to(device)
            model.generate(tokens, max_new_tokens=3, **how)
            got, waits, asks = counted(lambda: model.generate(tokens, max_new_tokens=100, **how))  # noqa: B023
            assert got.shape[1] == 107
            assert waits <= 100 + 3, f"{type(model).__name__} {how}: {waits} waits"
            assert asks == 0, f"{type(model).__name__} {how}: {asks} asks"


def only_cuda_decoding_asks_nothing(device):
    """a decode loop of one's own with DynamicCache and StaticCache: no waits, no asks for sizes never seen"""
    for make in (gpt2, llama):
        model = make().to(device)
        for kind in ("dynamic", "static"):

            def decode(steps, kind=kind, model=model):
                cache = StaticCache(model.config, max_cache_len=128) if kind == "static" else DynamicCache()
                token = prompt(2, 1).to(device)
                with torch.no_grad():
                    for _ in range(steps):
                        logits = model(token, past_key_values=cache, use_cache=True).logits
                        token = logits[:, -1].argmax(-1, keepdim=True)
                return token

            decode(2)
            _, waits, asks = counted(lambda decode=decode: decode(60))
            assert asks == 0, f"{make.__name__}, {kind} cache: {asks} asks"
            assert waits <= 1, f"{make.__name__}, {kind} cache: {waits} waits"


def trained(device, **how):
    rows = [{"input_ids": row, "labels": row} for row in prompt(24, 12)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, use_cpu=device == "cpu", max_steps=5, per_device_train_batch_size=4, logging_steps=1, report_to=[],
            save_strategy="no", disable_tqdm=True, learning_rate=1e-2, seed=7, gradient_accumulation_steps=2, **how,
        )  # fmt: skip
        trainer = Trainer(gpt2(), arguments, train_dataset=rows, eval_dataset=rows[:8])
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return [losses, trainer.evaluate()["eval_loss"], trainer.model.state_dict()]


def check_trainer(device):
    """Trainer: float32, accumulated gradients, schedule, evaluation"""
    return trained(device)


def check_trainer_bf16(device):
    """Trainer(bf16=True)"""
    return trained(device, bf16=True)[:2]


def only_cuda_trainer_fp16(device):
    """Trainer(fp16=True) with its GradScaler: losses within 0.01 of those of float32 (a CPU has no fp16 training)"""
    losses, evaluation, _ = trained(device, fp16=True)
    exact, exact_evaluation, _ = trained(device)
    assert losses != exact
    assert all(abs(a - b) < 0.01 for a, b in zip([*losses, evaluation], [*exact, exact_evaluation], strict=True))


def check_trainer_saves_and_resumes(device):
    """Trainer: checkpoint after three steps, resumed to five"""
    rows = [{"input_ids": row, "labels": row} for row in prompt(24, 12)]
    with tempfile.TemporaryDirectory() as folder:
        for steps in (3, 5):
            arguments = TrainingArguments(
                folder, use_cpu=device == "cpu", max_steps=steps, per_device_train_batch_size=4, logging_steps=1, report_to=[],
                save_steps=3, disable_tqdm=True, lr_scheduler_type="constant", seed=7,
            )  # fmt: skip
            trainer = Trainer(gpt2(), arguments, train_dataset=rows)
            trainer.train(resume_from_checkpoint=steps == 5)
        return [[e["loss"] for e in trainer.state.log_history if "loss" in e], trainer.model.state_dict()]


def check_from_pretrained(device):
    """save_pretrained, from_pretrained(device_map=…) in float32 and bfloat16, from a local folder"""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        llama().save_pretrained(folder)
        wide, narrow = (
            LlamaForCausalLM.from_pretrained(folder, device_map=device, dtype=t) for t in (None, torch.bfloat16)
        )
        assert all(p.device.type == device for model in (wide, narrow) for p in model.parameters())
        with grouped_attention(device):
            logits = wide(prompt().to(device)).logits
        return [logits, narrow(prompt().to(device)).logits]


def check_pipelines(device):
    """pipeline: text generation, text classification, feature extraction"""
    seeded()
    words = tokenizer()
    text = pipeline("text-generation", model=gpt2(), tokenizer=words, device=device)
    written = text("the cat sat on", max_new_tokens=8, do_sample=False)
    classifier = BertForSequenceClassification(bert_config(num_labels=2)).eval()
    classify = pipeline("text-classification", model=classifier, tokenizer=words, device=device)
    classes = classify(["the big dog ran", "a red mat"])
    features = pipeline("feature-extraction", model=BertModel(bert_config()).eval(), tokenizer=words, device=device)
    return [written, classes, features("it was small")]


def check_trainer_in_two_processes(device):
    """Trainer under torchrun, two processes"""
    return two_processes(device, "launched_transformers.py", TORCHRUN)
