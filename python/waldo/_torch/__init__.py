"""What makes an unmodified `torch.cuda` work on our devices. Imported by the start-up hook, inside `import torch`."""
