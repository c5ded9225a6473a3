"""Denoising as a Gymnasium environment: to an agent, a generator is one more world to act in.

Importing this module registers ``PixelPolicy/Denoising-v0``. Gymnasium looks for no plugins, but it imports a module
that is named before a colon:

    gymnasium.make("pixelpolicy.policies.environment:PixelPolicy/Denoising-v0", reward=..., prompts=["a red circle"])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from pixelpolicy.errors import PromptError, RewardError, RolloutError
from pixelpolicy.generators import load
from pixelpolicy.policies.denoising import Denoiser, DenoisingPolicy
from pixelpolicy.rl import Reward

ENVIRONMENT_ID = "PixelPolicy/Denoising-v0"


class DenoisingEnv(gymnasium.Env):
    """One episode makes one sample: the state is the noisy latent and the action the next one (Black et al. 2023,
    arXiv 2305.13301, section 4), so that the world adds no chance of its own after the first latent.

    - observation: ``latent`` float32 in the generator's shape; ``step`` from 0 to ``steps``; ``tokens`` of the prompt
    - action: the next latent, float32, any finite number
    - reward: 0, and at the end ``reward`` of the decoded sample
    - info, always: ``prompt`` the text; ``mean`` and ``std`` of the generator's own next latent, of which an agent may
      draw; where ``std`` is 0 (as in a flow's last step) the only sensible action is ``mean``, at the end the latent
      itself; ``seed`` of the stream whose first draw made the first latent, as in `DenoisingPolicy.rollout`
    - info, after a step with ``std > 0``: ``log_prob`` of the action under that Gaussian
    - info, at the end: ``sample`` in the world's own units and ``components`` of the reward

    ``generator`` is a `Denoiser`, used as it is, or a name for `load`. Of ``prompts`` each episode draws one, unless
    ``reset`` is given ``options={"prompt": text}``. ``tokenizer`` is a function from texts to tokens ``[batch, words]``
    (always as many words) and the size of its vocabulary; without it the generator's ``prompt_encoder`` is asked.
    ``settings`` are those of `DenoisingPolicy`: ``transition``, ``steps``, ``stochastic_steps``, ``guidance_scale``,
    ``dtype``, ``log_prob_of``.

    Raises `RewardError` without a `Reward`, `PromptError` without prompts and for words outside the vocabulary, and
    `RolloutError` for steps that cannot be, an action that is no latent, and a step where no episode runs.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
        reward: Reward | None = None,
        prompts: Sequence[str] = (),
        *,
        generator: Denoiser | str = "shapes",
        tokenizer: tuple[Callable[[list[str]], Tensor], int] | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ):
        # No default: the rewards are beside this floor, which must not know them.
        if not isinstance(reward, Reward):
            raise RewardError(
                f"a Reward is needed to judge the sample, and {reward!r} was given; "
                "pass for instance reward=pixelpolicy.rewards.shapes_dense()"
            )
        if isinstance(prompts, str) or not prompts:
            raise PromptError(f'prompts is {prompts!r}; give a list of at least one text, such as ["a red circle"]')
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise RolloutError(
                f"there is no render_mode {render_mode!r}; choose 'rgb_array', or None to render nothing"
            )
        generator = load(generator) if isinstance(generator, str) else generator
        self.policy, self.reward, self.prompts = DenoisingPolicy(generator, **settings), reward, list(prompts)
        self.render_mode = render_mode
        if self.policy.steps < 1:
            raise RolloutError(f"an episode of {self.policy.steps} steps makes no sample; give at least 1")
        self._noisy, self._sigmas = self.policy.noisy_steps(), generator.sigmas(self.policy.steps)
        self._tokens_of, vocabulary = tokenizer or _own_tokenizer(generator)
        length = self._tokens_of(self.prompts).shape[1]
        self.action_space = spaces.Box(-np.inf, np.inf, tuple(generator.latent_shape), np.float32)
        self.observation_space = spaces.Dict(
            latent=spaces.Box(-np.inf, np.inf, tuple(generator.latent_shape), np.float32),
            step=spaces.Discrete(self.policy.steps + 1),
            tokens=spaces.MultiDiscrete([vocabulary] * length),
        )
        self._state, self._step = None, self.policy.steps  # no episode runs before the first reset

    @torch.no_grad()
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        options = options or {}
        if options.keys() - {"prompt"}:
            raise RolloutError(f"reset was given the options {sorted(options)}; it knows 'prompt' alone")
        stream, row = int(self.np_random.integers(2**63 - 1)), int(self.np_random.integers(len(self.prompts)))
        prompt = options.get("prompt", self.prompts[row])
        if not isinstance(prompt, str):
            raise PromptError(f"the prompt {prompt!r} is no text; give one such as {self.prompts[0]!r}")
        tokens, conditioning = self._tokens_of([prompt])[0], self.policy.conditioning([prompt])
        # Both accept the prompt: only now does the episode before it end.
        self._tokens, self._conditioning = tokens.cpu().numpy().astype(np.int64), conditioning
        self._prompt, self._stream, self._step = prompt, stream, 0
        noise = torch.randn(tuple(self.action_space.shape), generator=torch.Generator().manual_seed(stream))
        self._state = self.policy.first_state(noise[None])
        self._look_ahead()
        return self._observation(), self._info()

    @torch.no_grad()
    def step(self, action: np.ndarray):
        if self._step == self.policy.steps:
            raise RolloutError("no episode runs: it has ended, or none has begun. Call reset() before step().")
        state = self._checked(action)
        info = {}
        if self._step in self._noisy:
            info["log_prob"] = self.policy.log_prob_of(state.float(), self._mean, self._std).item()
        self._state, self._step = state, self._step + 1
        self._look_ahead()
        reward, ended = 0.0, self._step == self.policy.steps
        if ended:
            sample = self._decoded()
            total, components = self.reward.evaluate(sample, [self._prompt])
            reward = total.item()
            info |= {"sample": _array(sample[0]), "components": {name: v.item() for name, v in components.items()}}
        return self._observation(), reward, ended, False, self._info() | info

    def render(self) -> np.ndarray | None:
        """The decoded latent as it is now, uint8 ``[height, width, 3]``."""
        if self.render_mode is None:
            gymnasium.logger.warn('render() needs a mode: make the environment with render_mode="rgb_array"')
            return None
        if self._state is None:
            raise RolloutError("there is no latent to decode before the first reset(); call it before render()")
        return ((_array(self._decoded()[0]).transpose(1, 2, 0) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)

    def _stored(self, latent: Tensor) -> Tensor:
        """A latent as a batch of one, on the generator's device, in the dtype in which states are kept."""
        return latent[None].to(self.policy.generator.device, self.policy.dtype)

    def _checked(self, action: Any) -> Tensor:
        remedy = "Give the next latent: mean + std * noise of the last info, say."
        try:
            latent = np.asarray(action, np.float32)
        except (TypeError, ValueError) as error:
            raise RolloutError(f"an action of {type(action).__name__} is no array of numbers. {remedy}") from error
        if latent.shape != self.action_space.shape:
            given, wanted = list(latent.shape), list(self.action_space.shape)
            raise RolloutError(f"the action has shape {given}, a latent has {wanted}. {remedy}")
        state = self._stored(torch.tensor(latent))
        if not state.isfinite().all():
            raise RolloutError(f"the action holds NaN or infinity in {self.policy.dtype}. {remedy}")
        return state

    def _look_ahead(self) -> None:
        """Ask the generator for its own next step; at the end there is none, and the latent stays where it is."""
        if self._step == self.policy.steps:
            self._mean, self._std = self._state.float(), torch.zeros(())
        else:
            noisy = self._step in self._noisy
            self._mean, self._std = self.policy.gaussian(
                self._state, self._conditioning, self._sigmas, self._step, noisy
            )

    @torch.no_grad()
    def _decoded(self) -> Tensor:
        return self.policy.generator.decode(self._state.float()).float().cpu()

    def _observation(self) -> dict[str, Any]:
        return {"latent": _array(self._state[0]), "step": self._step, "tokens": self._tokens.copy()}

    def _info(self) -> dict[str, Any]:
        mean, std = _array(self._mean[0]), _array(torch.as_tensor(self._std))[()]
        return {"prompt": self._prompt, "seed": self._stream, "mean": mean, "std": std}


def _own_tokenizer(generator: Denoiser) -> tuple[Callable[[list[str]], Tensor], int]:
    encoder = getattr(generator, "prompt_encoder", None)
    if encoder is None:
        raise PromptError(
            f"{type(generator).__name__} has no prompt_encoder to make tokens of prompts; pass tokenizer=(a function "
            "from texts to tokens [batch, words], the size of its vocabulary)"
        )
    return encoder.tokens, len(encoder.config["vocabulary"])


def _array(values: Tensor) -> np.ndarray:
    """A copy, so that what an agent does to what it was given changes nothing here."""
    return values.detach().float().cpu().numpy().copy()


gymnasium.register(id=ENVIRONMENT_ID, entry_point=f"{__name__}:DenoisingEnv")
