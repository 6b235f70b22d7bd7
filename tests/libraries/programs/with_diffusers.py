"""Hugging Face diffusers"""

import tempfile

import torch
from common import seeded
from diffusers import AutoencoderKL, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DConditionModel, UNet2DModel

# Both: CUDA's group_norm makes a channels_last input contiguous first; the CPU's keeps the layout and adds in another order.
DIFFERENT = {
    "check_unet_trains": (1e-5, "group_norm of a channels_last input: CUDA makes it contiguous first"),
    "check_pipeline": (1e-5, "group_norm of a channels_last input: CUDA makes it contiguous first"),
}


def unet():
    seeded()
    return UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def check_unet_trains(device):
    """UNet2DModel: three steps of predicting the noise"""
    net, noising = unet().to(device), DDPMScheduler(num_train_timesteps=20)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    generator, losses = torch.Generator().manual_seed(3), []
    for _ in range(3):
        clean, noise = (torch.randn(2, 1, 8, 8, generator=generator).to(device) for _ in range(2))
        steps = torch.randint(20, (2,), generator=generator).to(device)
        loss = (net(noising.add_noise(clean, noise, steps), steps).sample - noise).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def check_pipeline(device):
    """DDPMPipeline saved, loaded and moved; ten steps from the same noise"""
    with tempfile.TemporaryDirectory() as folder:
        DDPMPipeline(unet(), DDPMScheduler(num_train_timesteps=20)).save_pretrained(folder)
        pipe = DDPMPipeline.from_pretrained(folder).to(device)
        pipe.set_progress_bar_config(disable=True)
        made = pipe(2, torch.Generator().manual_seed(4), num_inference_steps=10, output_type="np")
        return torch.from_numpy(made.images)


def check_conditioned(device):
    """UNet2DConditionModel with DDIM, and AutoencoderKL: encode and decode"""
    with torch.no_grad():
        seeded()
        net = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
            attention_head_dim=4, cross_attention_dim=12, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        coder = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8, latent_channels=4)
        latent, text = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 12)
        net, coder, latent, text = (x.to(device) for x in (net, coder, latent, text))
        schedule = DDIMScheduler(num_train_timesteps=20)
        schedule.set_timesteps(4, device=device)
        for step in schedule.timesteps:
            latent = schedule.step(net(latent, step, text).sample, step, latent).prev_sample
        picture = coder.decode(latent).sample
        return [latent, picture, coder.encode(picture).latent_dist.mode()]
