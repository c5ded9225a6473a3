"""Noise and adapters for the tests of pipelines."""

import torch


def noise(generator, count, first=0):
    streams = [torch.Generator().manual_seed(first + i) for i in range(count)]
    return torch.stack([torch.randn(generator.latent_shape, generator=stream) for stream in streams])


def lora_of(generator):
    return {name: p for name, p in generator.transformer.named_parameters() if p.requires_grad}


def shaken(student, size=0.05, seed=0):
    """A student whose adapter does something."""
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lora_of(student).values():
            parameter.add_(size * torch.randn(parameter.shape, generator=stream))
    return student
