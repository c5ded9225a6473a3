"""How long three transformers take on the tokens of a clip: Wan's, SD3's, and one written by hand.

    python benchmarks/video_throughput.py

prints milliseconds of CPU a clip at batch 128, forward, and forward with backward, the median of 12 rounds in turn.
"""

import math
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelpolicy.generators.tokens import row_transformer
from pixelpolicy.generators.video import CODE, clip_transformer
from pixelpolicy.worlds.bounce import FRAMES, MOST_WORDS

WIDTH, LAYERS, TEXT, BATCH, ROUNDS = 96, 4, 64, 128, 12


class Block(nn.Module):
    """Attention and a dense layer, scaled and shifted by what is known of noise level and prompt."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.known = nn.Linear(WIDTH, 6 * WIDTH)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        scale, shift, gate, scale2, shift2, gate2 = self.known(known)[:, None].chunk(6, -1)
        q, k, v = self.qkv(self.norms[0](x) * (1 + scale) + shift).unflatten(-1, (3, -1, 32)).permute(2, 0, 3, 1, 4)
        x = x + gate * self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + gate2 * self.narrow(F.gelu(self.wide(self.norms[1](x) * (1 + scale2) + shift2)))


class ByHand(nn.Module):
    """As many layers as wide, with words and frames in one sequence."""

    def __init__(self):
        super().__init__()
        self.enter, self.words, self.leave = nn.Linear(CODE, WIDTH), nn.Linear(TEXT, WIDTH), nn.Linear(WIDTH, CODE)
        self.place = nn.Parameter(torch.randn(FRAMES + MOST_WORDS, WIDTH) * 0.02)
        self.level = nn.Sequential(nn.Linear(64, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))

    def forward(self, x: Tensor, time: Tensor, words: Tensor) -> Tensor:
        waves = time[:, None] * torch.exp(-math.log(1e4) * torch.arange(32) / 32)
        known = self.level(torch.cat([waves.sin(), waves.cos()], 1))
        tokens = torch.cat([self.enter(x.transpose(1, 2)), self.words(words)], 1) + self.place
        for block in self.blocks:
            tokens = block(tokens, known)
        return self.leave(tokens[:, :FRAMES]).transpose(1, 2)


def main() -> None:
    torch.manual_seed(0)
    x, words, level = torch.randn(BATCH, CODE, FRAMES), torch.randn(BATCH, MOST_WORDS, TEXT), torch.rand(BATCH) * 1000
    settings = {"width": WIDTH, "layers": LAYERS, "text_width": TEXT}
    wan, sd3, hand = clip_transformer(CODE, **settings), row_transformer(FRAMES, CODE, **settings), ByHand()
    plain = {"timestep": level, "encoder_hidden_states": words, "return_dict": False}
    calls = {
        "WanTransformer3DModel": lambda: wan(hidden_states=x[..., None, None], **plain)[0],
        "SD3Transformer2DModel": lambda: sd3(hidden_states=x[:, :, None], pooled_projections=words[:, 0], **plain)[0],
        "by hand": lambda: hand(x, level, words),
    }
    taken = {name: ([], []) for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.process_time()
            with torch.no_grad():
                call()
            middle = time.process_time()
            call().square().mean().backward()
            taken[name][0].append(middle - start)
            taken[name][1].append(time.process_time() - middle)
    for name, (forward, both) in taken.items():
        ms = [1000 * statistics.median(part) / BATCH for part in (forward, both)]
        print(f"{name:22} forward {ms[0]:.3f} ms, forward and backward {ms[1]:.3f} ms a clip")


if __name__ == "__main__":
    main()
