# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 10: asking the reward which way is up
#
# DDPO in lab 09 asked a reward for a number, thousands of times, and worked out from the numbers which way was up.
# But suppose that the reward is itself a network. Then it can be asked directly: *how should this picture change, for
# you to like it better?* The answer is a gradient. It flows through the picture into the sampler and on into the
# weights.
#
# You will write the pieces of **DRaFT**, **AlignProp** and **ReFL**, and race them against DDPO. Then you will hand the
# same functions a reward that says a little less than you mean, and watch the same speed run into ruin within seconds.
# The last part is about brakes.
#
# You need chapter 10, and the pathwise gradient from the end of lab 04. Eight exercises, about 75 minutes; the
# trainings take six minutes more. Leave whenever you like: your answers and points are kept.

# %% [markdown]
# <details><summary>You have a CUDA card? The profile <code>gpu</code> lets the same functions of yours train a real
# model.</summary>
#
# | profile `gpu` | |
# |---|---|
# | model | Stable Diffusion 1.5, 512 x 512 pixels: `stable-diffusion-v1-5/stable-diffusion-v1-5` |
# | licence | CreativeML Open RAIL-M; not gated |
# | disk | 4.3 GB |
# | VRAM, loading (estimate, unmeasured) | 2.3 GB |
# | VRAM, training (estimate, unmeasured) | 2.1 GB of weights and optimiser; activations come on top |
# | activations of a picture (estimate, unmeasured) | each step with guidance 2.2 GB, the decoder 6.0 GB |
# | the same with `student.checkpoint_gradients()` | each step 0.3 GB, the decoder 0.9 GB; a part is computed again |
# | trained | a LoRA of rank 4, alpha 4, in float32; the rest is frozen, the network in bfloat16 |
# | reward | the small proxy, on pictures averaged down to 32 x 32; it has never seen this model's pictures |
# | a 24 GB card, which `gpu` is set for | checkpointed inside, `micro_batch` 4, `decode_batch` 1 |
# | steps, guidance | 50 steps, guidance 5 (this course's choice: DRaFT's own is not attested) |
#
# Nothing fetches the weights but this command:
#
# ```bash
# hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --exclude "*.bin" --exclude "*.ckpt" --exclude "*fp16*" \
#     --exclude "*non_ema*" --exclude "v1-5-pruned*" --exclude "safety_checker/*"
# ```
#
# Without CUDA, `PIXELPOLICY_PROFILE=gpu` is a **rehearsal**: the same code with a tiny twin of that model, whose
# weights are random. It shows that everything runs; what it draws and scores means nothing.
#
# </details>

# %%
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from IPython.display import Markdown, display
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

# %%
from pixelpolicy import viz
from pixelpolicy.course import check, recorded
from pixelpolicy.course.results import start_timer, write_record
from pixelpolicy.errors import LabError
from pixelpolicy.finetune import DDPO, GRPOConfig, Loop, LoopConfig, RewardGradient, RewardGradientConfig
from pixelpolicy.finetune.recompute import recomputing
from pixelpolicy.generators import best_of, evaluate, load
from pixelpolicy.pipelines import sd15
from pixelpolicy.pipelines.lora import sharing_copy
from pixelpolicy.policies import DenoisingPolicy, ddim_eta, ode
from pixelpolicy.profiles import choose, real_model, rehearsing, seed
from pixelpolicy.rewards import learned_proxy, redness
from pixelpolicy.rl import Reward
from pixelpolicy.worlds import shapes

# %% [markdown]
# ## 1. Two ways to a gradient
#
# Lab 04 ended with two gradients of the same thing, an expectation over a Gaussian. The **score function** weighs the
# gradient of a log-probability with the reward, and needs nothing but the number. The **pathwise** gradient writes the
# draw as a function of the policy, and goes *through* it. All that follows in this lab rests on one line of code.

# %% [markdown] goal="10.1"
# Write it: the draw $x = \mu + s\,\varepsilon$ from a Gaussian with mean $\mu$ (`mean`, `[batch, ...]`) and deviation
# $s$ (`std`, one number), given noise $\varepsilon$ with deviation 1 (`noise`, shaped as the mean). A gradient must
# reach the mean and the deviation.


# %% exercise={"id": "10.1", "name": "draw_state", "title": "A draw with a gradient", "points": 1, "minutes": 4, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def draw_state(
    mean: Float[Tensor, "batch ..."], std: Float[Tensor, ""], noise: Float[Tensor, "batch ..."]
) -> Float[Tensor, "batch ..."]:
    """A draw from N(mean, std^2) as a function of mean and deviation."""
    ### BEGIN SOLUTION
    return mean + std * noise
    ### END SOLUTION


# %% [markdown] hints="10.1"
# <details><summary>Hint 1: where the chance is</summary>
#
# All chance is in `noise`, which is handed to you. Draw nothing yourself.
#
# </details>
# <details><summary>Hint 2: why not a sampler of torch</summary>
#
# `torch.normal` draws too, but no gradient passes it: it forgets how the draw came of the mean.
#
# </details>
# <details><summary>Hint 3: two operations</summary>
#
# Stretch the noise by the deviation, then move it to the mean.
#
# </details>

# %% check="10.1"
check("10.1", draw_state)

# %% [markdown]
# How much is it worth? Take a policy that draws a whole latent at once, 256 numbers from a Gaussian with mean 0, and a
# reward that is highest where all of them are 1. The exact gradient points to $(1, 1, \dots, 1)$. We average the
# gradients of N samples by each road, and measure how well the average points there: 1 is exactly, 0 is anywhere.

# %%
SIZE = 256
counts = [1, 4, 16, 64, 256, 1024]
noise = torch.randn(max(counts), SIZE, generator=torch.Generator().manual_seed(seed()))
means = torch.zeros_like(noise, requires_grad=True)  # one mean a sample, so that gradients stay apart
draws = draw_state(means, torch.tensor(1.0), noise)
rewards = -(draws - 1).square().sum(1)
(through,) = torch.autograd.grad(rewards.sum(), means)
around = (rewards - rewards.mean()).detach()[:, None] * noise  # reward, less its mean, times grad log-probability


def aim(gradients: Tensor) -> float:
    return F.cosine_similarity(gradients.mean(0), torch.ones(SIZE), dim=0).item()


aims = {name: [aim(g[:n]) for n in counts] for name, g in (("pathwise", through), ("score function", around))}

# %%
viz.curves(
    {name: (np.log2(counts).tolist(), values) for name, values in aims.items()},
    xlabel="samples averaged (powers of two)",
    ylabel="cosine with the exact gradient",
    alt="How well the averaged gradient points the right way, against the number of samples. Pathwise: "
    f"{aims['pathwise'][0]:.2f} with one sample. Score function: {aims['score function'][0]:.2f} with one, "
    f"{aims['score function'][-1]:.2f} with {counts[-1]}.",
)

# %% [markdown]
# One sample through the reward knows more than hundreds round it. That is the whole advantage, and you will see it
# again as seconds on the clock.
#
# ## 2. Meet the reward
#
# The price: the reward must have a gradient. The verifier of our shapes counts objects, and counting has none. So a
# network of 0.3 million parameters was trained to guess the verifier's dense score from the picture and its prompt, as
# reward models of real systems are trained to guess what people say. It is called the **proxy**. First the generator:

# %%
lab_clock = start_timer()
device = "cuda" if torch.cuda.is_available() else "cpu"
if real_model():
    base = sd15.load_for_profile(decode_batch=1, template="a flat drawing of {prompt} on a black background")
    base.remember(shapes.prompts())  # each prompt is encoded once; then
    base.forget_text_encoders()  # their memory is free for gradients
    base.checkpoint_gradients()  # within the network and the decoder: section 6 explains it
else:
    base = load("shapes").to(device)


# %%
def small(pictures: Tensor) -> Tensor:
    """Pictures of the proxy's 32 x 32 pixels: averaged down where they are larger, with gradient."""
    return F.avg_pool2d(pictures, pictures.shape[-1] // 32)


proxy = Reward("proxy", lambda pictures, prompts: learned_proxy()(small(pictures), prompts), differentiable=True)
texts, seeds = shapes.evaluation_pairs("validation", choose(smoke=2, cpu=64, gpu=16))
pictures = base.generate(texts, seeds)
with torch.no_grad():
    values = proxy(pictures, texts)
verdicts = shapes.verify(pictures.cpu().numpy(), texts)
strict = torch.tensor([verdict.strict for verdict in verdicts])

# %%
figure = Figure(figsize=(6.4, 3.2))
axis = figure.subplots()
for told, colour, name in ((False, "#D55E00", "rejected"), (True, "#009E73", "accepted")):
    axis.hist(values[strict == told].numpy(), bins=np.linspace(-0.1, 1.3, 29), color=colour, alpha=0.6, label=name)
axis.set(xlabel="what the proxy says", ylabel="pictures")
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
order = (values[strict][:, None] > values[~strict]).float()
right = order.mean().item() if order.numel() else 0.0
viz.picture(figure, alt="Histogram of the proxy's values for pictures of the base. Accepted pictures stand at the "
            f"right, rejected ones spread to the left; of two, the accepted one is higher in {right:.0%}.")  # fmt: skip

# %% [markdown]
# A good judge of the base's pictures, then. It was trained on exactly such pictures. What does it say where it has
# never been? Here are things that are no pictures of shapes at all, and one that was *made* for it: random colours,
# moved pixel by pixel along the proxy's gradient.


# %%
def climb(pictures: Tensor, prompts: list[str], steps: int, rate: float = 0.03) -> Tensor:
    """Move pixels, not weights, to where the proxy is higher."""
    for _ in range(steps):
        pictures = pictures.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(proxy(pictures, prompts).sum(), pictures)
        pictures = (pictures + rate * gradient.sign()).clamp(-1, 1)
    return pictures.detach()


# %%
prompt = "a red circle left of a blue square"
noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed())) * 2 - 1
strange = {
    "true picture": torch.from_numpy(shapes.draw([shapes.scene(prompt, np.random.default_rng(seed()))])),
    "empty": torch.from_numpy(shapes.draw([()])),
    "grey": torch.zeros(1, 3, 32, 32),
    "stripes": torch.ones(1, 3, 32, 32) * torch.tensor([1.0, -1.0]).repeat(16),
    "noise": noise,
    "noise that climbed": climb(noise.to(device), [prompt], choose(smoke=5, cpu=60, gpu=60)).cpu(),
}
odd = torch.cat(list(strange.values()))
with torch.no_grad():
    said = proxy(odd.to(device), [prompt] * len(odd)).tolist()
found = [verdict.dense for verdict in shapes.verify(odd.numpy(), [prompt] * len(odd))]

# %%
viz.sample_sheet(
    odd,
    [f"{name}: proxy {a:.2f}, verifier {b:.2f}" for name, a, b in zip(strange, said, found, strict=True)],
    columns=6,
    alt=f"Six pictures under the prompt '{prompt}': "
    + "; ".join(f"{name}, proxy {a:.2f}, verifier {b:.2f}" for name, a, b in zip(strange, said, found, strict=True)),
)

# %% [markdown]
# Compare each with the true picture at the left. The proxy was never shown grey, stripes or noise, and nothing keeps it
# from liking them; and where it may be climbed, no height is enough. A gradient finds such places as surely as it finds
# good pictures. What stands in its way at first is the generator: it learnt from pictures, and its weights begin there.
#
# ## 3. What the reward wants
#
# The gradient of the proxy in the *pixels* can be looked at. Below each rejected picture stands what the proxy wants
# changed: grey is "leave it", bright is "more of this colour", dark is "less".

# %%
wrong = [i for i in range(len(texts)) if not strict[i]]
wrong = wrong[:: max(len(wrong) // 8, 1)][:8]  # some of each kind of prompt
shown, asked = pictures[wrong].to(device).requires_grad_(), [texts[i] for i in wrong]
(wish,) = torch.autograd.grad(proxy(shown, asked).sum(), shown)
wish = wish / wish.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
viz.sample_sheet(
    torch.cat([shown.detach(), wish]),
    asked + ["what the proxy wants"] * len(wrong),
    columns=len(wrong),
    alt=f"{len(wrong)} rejected pictures, and under each the gradient of the proxy as a picture: mostly grey, with "
    "coloured spots where objects are, are missing, or have the wrong colour.",
)

# %% [markdown]
# A number would have said "0.6". This says *where*. Now it must get from the pixels to the weights.
#
# ## 4. Through the sampler
#
# A picture is made in steps: $x_{t+1} = f_\theta(x_t)$, several times, and then decoded. Every step is
# differentiable, so the reward is a differentiable function of the weights $\theta$, and autograd would do the rest.
# But it would keep all that the network computes at every step. **DRaFT-K** keeps the last K steps only: those before
# run without gradient.

# %% [markdown] goal="10.2"
# `steps` is a list of functions, each from a state to the next. Take them one after another. Steps number `first` and
# later carry gradient, from one to the next; those before must run with gradients *off*, or their memory is paid for.


# %% exercise={"id": "10.2", "name": "unroll", "title": "Truncated sampling", "points": 3, "minutes": 12, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def unroll(
    state: Float[Tensor, "batch ..."], steps: Sequence[Callable[[Tensor], Tensor]], first: int
) -> Float[Tensor, "batch ..."]:
    """Take all steps in order; the gradient passes those from number `first` on."""
    ### BEGIN SOLUTION
    with torch.no_grad():
        for step in steps[:first]:
            state = step(state)
    for step in steps[first:]:
        state = step(state)
    return state
    ### END SOLUTION


# %% [markdown] hints="10.2"
# <details><summary>Hint 1: two stretches</summary>
#
# Slices of the list give you the early steps and the late ones: `steps[:first]`, `steps[first:]`.
#
# </details>
# <details><summary>Hint 2: switching off</summary>
#
# `with torch.no_grad():` around the early steps. A `detach` afterwards would come too late for the memory.
#
# </details>
# <details><summary>Hint 3: and no more</summary>
#
# Within the late steps cut nothing: the second must send its gradient back to the first.
#
# </details>

# %% check="10.2"
check("10.2", unroll)

# %% [markdown]
# From here on your functions *are* the sampler. `RewardGradient` builds the list of steps from a policy and hands it
# to your `unroll`; its samples are those of an ordinary rollout. Let us ask for the gradient of the last K steps, for
# every K, on the same pictures: how long is it, and does it point where the full gradient points?

# %%
policy = DenoisingPolicy(
    base,
    ode,
    steps=choose(smoke=3, cpu=5, gpu=50),
    guidance_scale=choose(smoke=1.0, cpu=1.0, gpu=5.0),
    micro_batch=choose(smoke=48, cpu=48, gpu=4),
)
pieces = {"draw_state": draw_state, "unroll": unroll}
settings = RewardGradientConfig(prompts_per_iteration=choose(smoke=4, cpu=48, gpu=16), seed=seed())


def learner(student, **changes) -> RewardGradient:
    """A reward gradient made of your functions."""
    given = {"policy": replace(policy, generator=student), "reward": proxy, "config": settings} | pieces | changes
    return RewardGradient(draw_prompts=shapes.draw_prompts, **given)


# %%
def weight_gradient(algorithm: RewardGradient, window: tuple[int, int], count: int = 16) -> tuple[Tensor, float]:
    """The gradient of the mean reward in the weights, and the megabytes that were kept for it."""
    kept, weights = {}, {p.data_ptr() for p in algorithm.model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    texts = shapes.draw_prompts(count, np.random.default_rng(seed()))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        samples, _ = algorithm.samples(texts, torch.arange(count), window)
    algorithm.model.zero_grad()
    proxy(samples, texts).mean().backward()
    parts = [p.grad.flatten() for p in algorithm.model.parameters() if p.grad is not None]
    algorithm.model.zero_grad()
    return torch.cat(parts), sum(kept.values()) / 2**20


# %%
STEPS, COUNT = policy.steps, choose(smoke=2, cpu=16, gpu=2)
looked_at = learner(base.student())
spans = sorted({1, 2, 3, STEPS // 2, STEPS} - {0})
measured = {k: weight_gradient(looked_at, (STEPS - k, STEPS), COUNT) for k in spans}
full = measured[STEPS][0]
lines = ["| steps with gradient | length of the gradient | cosine with the full one | kept, MB |", "|---|---|---|---|"]
for k, (gradient, megabytes) in measured.items():
    cosine = F.cosine_similarity(gradient, full, dim=0).item() if len(gradient) == len(full) else float("nan")
    lines.append(f"| {k} | {gradient.norm():.2f} | {cosine:.2f} | {megabytes:.0f} |")
Markdown("\n".join(lines))

# %% [markdown]
# Memory grows with K. So does the length of the gradient, since every step multiplies what comes from behind: long
# chains can make it explode. The authors of DRaFT report both, and cut the chain short. The cosines say what the cut
# costs: a short chain points only in part where the full one points. It is biased, and, as you will see, good enough
# to climb by.
#
# ## 5. ReFL: a leap instead of a walk
#
# The last step polishes. What is *where* in the picture is decided earlier. **ReFL** looks there: it stops in the
# middle of the walk, at noise level $\sigma$, and lets the network *guess* the picture in one leap. Only the leap has
# gradient.

# %% [markdown] goal="10.3"
# A state at level $\sigma$ is $x = (1-\sigma)\,x_0 + \sigma\,x_1$, a mix of a picture $x_0$ and noise $x_1$, and the
# velocity is $v = x_1 - x_0$. Solve for the picture: given `state` and `velocity` (`[batch, ...]`) and `sigma` (one
# number), return $x_0$.


# %% exercise={"id": "10.3", "name": "guess_picture", "title": "A guess in one leap", "points": 1, "minutes": 5, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def guess_picture(
    state: Float[Tensor, "batch ..."], velocity: Float[Tensor, "batch ..."], sigma: Float[Tensor, ""]
) -> Float[Tensor, "batch ..."]:
    """The picture that a velocity points at, seen from noise level sigma."""
    ### BEGIN SOLUTION
    return state - sigma * velocity
    ### END SOLUTION


# %% [markdown] hints="10.3"
# <details><summary>Hint 1: put one into the other</summary>
#
# From $v = x_1 - x_0$ follows $x_1 = x_0 + v$. Put that into the mix.
#
# </details>
# <details><summary>Hint 2: what is left</summary>
#
# $x = (1-\sigma) x_0 + \sigma (x_0 + v)$. How much of $x_0$ is that, and how much of $v$?
#
# </details>
# <details><summary>Hint 3: a test in your head</summary>
#
# At $\sigma = 0$ you are there already: the guess is the state itself.
#
# </details>

# %% check="10.3"
check("10.3", guess_picture)

# %% [markdown]
# What does the network guess from each level? Four prompts, one row each; the leftmost guess is made from nothing but
# noise, the last from the step before the end.

# %%
rows, pieces["guess_picture"] = shapes.evaluation_pairs("test", 2)[0][1::2], guess_picture
looked_at = learner(base.student())
with torch.no_grad():
    guesses = [looked_at.samples(rows, torch.arange(len(rows)), (t, t))[0] for t in range(STEPS)]
levels = [f"level {sigma:.2f}" for sigma in base.sigmas(STEPS)[:-1]]
columns = min(STEPS, 5)
sheet = torch.stack(guesses[:columns], 1).flatten(0, 1)
viz.sample_sheet(
    sheet,
    [f"{text}, {level}" for text in rows for level in levels[:columns]],
    columns=columns,
    alt="Four prompts, one a row, guessed from falling noise levels: a blur of the right colours first, then shapes.",
)

# %% [markdown]
# The first guess is an average over all pictures that might come: the reward of a blur says little. From the second
# level on, places and colours stand. ReFL draws the level of its leap at random from the middle.

# %% [markdown] goal="10.4"
# Its second idea is the loss. A picture that is good enough need not get better: that is how pictures get strange. So
# ReFL counts what is *missing* to a reward that is `enough`, and nothing beyond:
#
# $$L = \operatorname{mean}_i \; \max(\text{enough} - r_i,\; 0)$$


# %% exercise={"id": "10.4", "name": "hinge", "title": "Good enough", "points": 2, "minutes": 7, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def hinge(rewards: Float[Tensor, "batch"], enough: float) -> Float[Tensor, ""]:
    """What is missing to a reward that is enough, on average over the pictures."""
    ### BEGIN SOLUTION
    return (enough - rewards).clamp(min=0).mean()
    ### END SOLUTION


# %% [markdown] hints="10.4"
# <details><summary>Hint 1: a hinge</summary>
#
# `clamp(min=0)`, or `relu`, makes everything below 0 to 0, and its gradient too.
#
# </details>
# <details><summary>Hint 2: picture by picture</summary>
#
# First the hinge of each reward, then the mean. The other way round, one splendid picture would excuse a bad one.
#
# </details>
# <details><summary>Hint 3: the mean of what</summary>
#
# Of all pictures, also of those that miss nothing.
#
# </details>

# %% check="10.4"
check("10.4", hinge)

# %% [markdown]
# ## 6. All the steps: memory, and where to cut
#
# What if you do want the early steps to learn from the finished picture? Then memory is in the way, and **gradient
# checkpointing** clears it. On the way forward keep only the *state* before each step. On the way back, take the step
# again from that state, this time with gradients on. You pay one more forward a step, and get the memory of one step.

# %% [markdown] goal="10.5"
# Write the way back of one step. You are given the `step` (a function), the `state` that it began with, the network's
# `parameters`, and the `gradient` of the reward in the step's *outcome*. Return the gradient in the state, and a list
# with the gradient in each parameter: zeros for one that the step does not use. Autograd calls you with gradients
# *off*.


# %% exercise={"id": "10.5", "name": "backward_by_recomputing", "title": "Checkpointing", "points": 3, "minutes": 20, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "torch.utils.checkpoint"]}
def backward_by_recomputing(
    step: Callable[[Tensor], Tensor],
    state: Float[Tensor, "batch ..."],
    parameters: Sequence[Tensor],
    gradient: Float[Tensor, "batch ..."],
) -> tuple[Float[Tensor, "batch ..."], list[Tensor]]:
    """The chain rule through one step that is taken again."""
    ### BEGIN SOLUTION
    with torch.enable_grad():
        state = state.detach().requires_grad_()
        outcome = step(state)
    of_state, *of_parameters = torch.autograd.grad(
        outcome, [state, *parameters], gradient, allow_unused=True, materialize_grads=True
    )
    return of_state, of_parameters
    ### END SOLUTION


# %% [markdown] hints="10.5"
# <details><summary>Hint 1: begin anew</summary>
#
# Make a fresh leaf of the state, `state.detach().requires_grad_()`, and take the step under `torch.enable_grad()`.
#
# </details>
# <details><summary>Hint 2: what comes from behind</summary>
#
# `torch.autograd.grad(outcome, inputs, gradient)` weighs the outcome with the gradient from behind before it
# differentiates. That is the chain rule.
#
# </details>
# <details><summary>Hint 3: unused parameters</summary>
#
# `allow_unused=True, materialize_grads=True` gives zeros. The first gradient is the state's, the rest the parameters'.
#
# </details>

# %% check="10.5"
check("10.5", backward_by_recomputing)

# %% [markdown]
# The same gradient as before through all steps, now with your way back:

# %%
thrifty = learner(base.student(), config=replace(settings, checkpointing=True))
thrifty.recompute = recomputing(backward_by_recomputing, thrifty.model.parameters())
again, megabytes = weight_gradient(thrifty, (0, STEPS), COUNT)
difference = ((again - full).norm() / full.norm().clamp_min(1e-12)).item()
print(f"kept {measured[STEPS][1]:.0f} MB without, {megabytes:.0f} MB with checkpointing")
print(f"relative difference of the two gradients: {difference:.1e}")
assert difference < 1e-3

# %% [markdown]
# What is still kept is the decoder's share. (`torch.utils.checkpoint` is the same idea with more care for corner
# cases.)

# %% [markdown] goal="10.6"
# Memory solved, the long chain remains: its gradients are long and shaky. **AlignProp** cuts it at a random place,
# anew in every iteration, so that each step learns now and then, and most chains are short. Return the pair `(first,
# last)`: the steps from `first` to the end of the `steps` carry gradient, so `last` is `steps`. Every step may be the
# first, with the same chance. `rng` is a NumPy generator.


# %% exercise={"id": "10.6", "name": "random_cut", "title": "AlignProp's cut", "points": 1, "minutes": 5, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def random_cut(steps: int, rng: np.random.Generator) -> tuple[int, int]:
    """Which steps carry gradient: from a random one to the end."""
    ### BEGIN SOLUTION
    return int(rng.integers(steps)), steps
    ### END SOLUTION


# %% [markdown] hints="10.6"
# <details><summary>Hint 1: who draws</summary>
#
# `rng.integers(n)` draws a whole number. Nothing else may decide, or the run cannot be repeated.
#
# </details>
# <details><summary>Hint 2: the edges</summary>
#
# It draws from 0 to n - 1. Steps are numbered from 0 to `steps - 1`.
#
# </details>
# <details><summary>Hint 3: at least one</summary>
#
# With `first` equal to `steps`, no step would learn. That must not happen; `steps - 1`, the last step alone, may.
#
# </details>

# %% check="10.6"
check("10.6", random_cut)

# %% [markdown]
# ## 7. Train it, four times
#
# Each method gets the same processor seconds and the untouched base; the learning rates are those that a short
# search found, lower where the gradient is longer. The proxy is what they
# climb. Beside it stands what nobody climbs: the strict verifier's accuracy, on prompts and seeds kept for that, with
# pictures of the plain ODE.

# %%
PER_LOOK = choose(smoke=1, cpu=32, gpu=8)
CLOCK = "seconds" if torch.cuda.is_available() else "cpu_seconds"


@torch.no_grad()
def look(generator, climbed: Reward | None = None) -> dict[str, float]:
    """What rewards and the strict verifier say of a generator's pictures; diversity is 0 where there is none."""
    texts, seeds = shapes.evaluation_pairs("validation", PER_LOOK)
    pictures = generator.generate(texts, seeds)
    scores = shapes.measure(pictures.cpu().numpy(), texts)
    scores |= {
        "proxy": proxy(pictures, texts).mean().item(),
        "climbed": (climbed or proxy)(pictures, texts).mean().item(),
    }
    return {key: float(np.nan_to_num(scores[key])) for key in ("climbed", "proxy", "accuracy", "diversity")}


def train(algorithm, seconds: float, *, rate: float, looks: int = 4, climbed: Reward | None = None) -> list[dict]:
    """Train for so many seconds of computing, looking now and then; looks are not counted."""
    config = LoopConfig(10_000, rate, warmup_iterations=2, ema_decay=0.5, progress=False)
    loop, spent = Loop(algorithm, config), 0.0
    log = [look(algorithm.policy.generator, climbed) | {"seconds": 0.0}]
    while spent < seconds:
        spent += loop.iterate()[CLOCK]
        if spent >= len(log) * seconds / looks:
            with loop.averaged_weights():
                log.append(look(algorithm.policy.generator, climbed) | {"seconds": spent})
    loop.ema.copy_to(loop.parameters)
    return log


# %%
BUDGET = choose(smoke=0.1, cpu=16.0, gpu=1200.0)
middle = (max(1, STEPS // 2), max(1, STEPS - 2))


def from_the_middle(steps: int, rng: np.random.Generator) -> tuple[int, int]:
    """ReFL: stop at a random middle step and leap; no step before it has gradient."""
    stop = int(rng.integers(middle[0], middle[1] + 1))
    return stop, stop


methods = {
    "DRaFT-1": {"choose_window": lambda steps, rng: (steps - 1, steps)},
    "DRaFT-3": {"choose_window": lambda steps, rng: (max(steps - 3, 0), steps)},
    "AlignProp": {"choose_window": random_cut},
    "ReFL": {"choose_window": from_the_middle, "objective": partial(hinge, enough=1.0)},
}
rates = {"DRaFT-1": 5e-4, "DRaFT-3": 3e-4, "AlignProp": 3e-4, "ReFL": 2e-4}
SLOWER = choose(smoke=1.0, cpu=1.0, gpu=0.3)

# %%
logs, trained = {}, {}
for name, changes in methods.items():
    trained[name] = base.student()
    logs[name] = train(learner(trained[name], **changes), BUDGET, rate=SLOWER * rates[name])
    last = logs[name][-1]
    print(f"{name:10s} {last['seconds']:5.1f} s: proxy {last['proxy']:.3f}, accuracy {last['accuracy']:.3f}")

# %%
start = logs["DRaFT-1"][0]


def panels(logs: dict[str, list[dict[str, float]]], keys: Sequence[str], alt: str) -> viz.Picture:
    """One panel a score, one line a run; the alternative text ends with where each run ends."""
    figure = Figure(figsize=(3.2 * len(keys), 3.0), layout="constrained")
    for axis, key in zip(np.atleast_1d(figure.subplots(1, len(keys))), keys, strict=True):
        for style, (name, log) in zip(("-", "--", "-.", ":", (0, (5, 1, 1, 1))), logs.items(), strict=False):
            colour = viz.COLOURS["ddpo"] if name == "DDPO" else None
            axis.plot([row["seconds"] for row in log], [row[key] for row in log], ls=style, c=colour, label=name)
        axis.set(xlabel="seconds of computing", title=key)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=8)
    ends = [f"{name}, proxy {r[-1]['proxy']:.2f} and accuracy {r[-1]['accuracy']:.2f}" for name, r in logs.items()]
    return viz.picture(figure, alt=f"{alt} Where they end: {'; '.join(ends)}.")


# %%
panels(logs, ("proxy", "accuracy", "diversity"), "Proxy, strict accuracy and diversity over seconds for four methods.")

# %% [markdown]
# All rise at once. Which is ahead changes with learning rates and seeds: take the order of the four as an anecdote.
# What they share is the pace, and for that there is a better measure.
#
# ## 8. The race
#
# DDPO, on the same proxy, from the same base, on the same clock. It sees the proxy's numbers and never its gradient.
# How long does each take to the proxy value that DDPO reaches in the end?

# %%
rival = base.student()
ddpo = DDPO(
    replace(policy, generator=rival, transition=partial(ddim_eta, noise=0.6), steps=choose(smoke=3, cpu=6, gpu=50)),
    proxy,
    shapes.draw_prompts,
    GRPOConfig(prompts_per_iteration=choose(smoke=2, cpu=16, gpu=8), group_size=choose(smoke=2, cpu=12, gpu=8),
               trained_steps=1000, minibatches=2, clip_range=choose(smoke=2e-3, cpu=2e-3, gpu=1e-4), kl_weight=0.02,
               seed=seed()),
)  # fmt: skip
logs["DDPO"] = train(ddpo, choose(smoke=0.1, cpu=50.0, gpu=3600.0), rate=choose(smoke=5e-4, cpu=5e-4, gpu=3e-4))


def time_to(log: list[dict[str, float]], goal: float) -> float:
    """Seconds until the proxy first reaches a goal, on a straight line between looks; infinite if it never does."""
    if log[0]["proxy"] >= goal:
        return 0.0
    for one, two in zip(log, log[1:], strict=False):
        if two["proxy"] >= goal:
            share = (goal - one["proxy"]) / max(two["proxy"] - one["proxy"], 1e-9)
            return one["seconds"] + max(share, 0.0) * (two["seconds"] - one["seconds"])
    return float("inf")


# %%
goal = max(row["proxy"] for row in logs["DDPO"])
times = {name: time_to(log, goal) for name, log in logs.items()}
for name, log in logs.items():
    print(f"{name:10s} reaches {goal:.3f} after {times[name]:6.1f} s; accuracy at its end {log[-1]['accuracy']:.3f}")
panels(
    {name: logs[name] for name in ("DRaFT-1", "ReFL", "DDPO")},
    ("proxy", "accuracy"),
    "Proxy and strict accuracy over seconds for two reward gradients and, over a much longer stretch, DDPO.",
)

# %% [markdown]
# These times are of one run, on a machine that may have had other things to do. The recorded race is of both methods in
# one process on an idle machine, three seeds each.


# %%
def kept(name: str) -> list[dict]:
    """The records of a benchmark; none where it has not been run yet."""
    try:
        return recorded.records(name)
    except LabError:
        print(f"There is no record {name} in this copy of the course: this section has nothing to show yet.")
        return []


for race in kept("10-reward-gradient-race"):
    if race["method"] != "DDPO":
        score = race["metrics"]
        print(f"seed {race['seed']}, {race['method']}: {score['seconds_to_goal']:.1f} CPU s to a proxy of "
              f"{score['goal']:.3f}, DDPO {score['ddpo_seconds_to_goal']:.1f} s: {score['speedup']:.1f} times as fast; "
              f"accuracy {score['accuracy_at_goal']:.3f}, DDPO's {score['ddpo_accuracy_at_goal']:.3f}")  # fmt: skip

# %% [markdown]
# ## 9. The hack
#
# So far nothing broke: the proxy is careful, it was fitted to 64,000 judged pictures, and it was climbed for seconds.
# Now suppose somebody wants warmer pictures, and writes a reward for that: *redness*, the mean over pixels of red
# less green and blue. It has a gradient, it is cheap, and it does rise with what was wanted. You hand it to DRaFT-1
# alone, trusting that the model will go on drawing what it is asked.

# %%
warm = redness()
victim = base.student()
hack = train(
    learner(victim, reward=warm, choose_window=methods["DRaFT-1"]["choose_window"]),
    choose(smoke=0.1, cpu=14.0, gpu=900.0), rate=SLOWER * 2e-4, looks=12, climbed=warm,
)  # fmt: skip
panels(
    {"redness": hack},
    ("climbed", "proxy", "accuracy", "diversity"),
    "What is climbed, the proxy, strict accuracy and diversity over seconds for DRaFT-1 on redness.",
)

# %%
sheet_prompts, sheet_seeds = shapes.evaluation_pairs("test", per_kind=2)
both = torch.cat([generator.generate(sheet_prompts, sheet_seeds) for generator in (base, victim)])
viz.sample_sheet(
    both,
    sheet_prompts * 2,
    accepted=[verdict.strict for verdict in shapes.verify(both.cpu().numpy(), sheet_prompts * 2)],
    alt="Two rows for the same eight prompts and seeds: the base's pictures, and below those of the model that climbed "
    "redness: flooded with red.",
)

# %% [markdown]
# Red they are. What is climbed rises to the end and says that these are the best pictures yet; nothing in it misses the
# shapes. It took seconds. DDPO would get there too, in minutes, and you would have had time to notice.
#
# Look at the panel of the proxy as well. Here it only watches, and at first it sounds the alarm. But pictures all red
# are one more place where it has never been: in our runs it ended by liking them better than the base's. A learned
# judge is no independent check. The verifier is, because it does not guess.
#
# %% [markdown]
# ## 10. Brakes
#
# As much faster to a good picture, as much faster to a hack. Four brakes are in use.
#
# **Stop early.** Watch something that is not trained on, and keep the weights from before it fell. With the log above
# that is a line:

# %%
floor = hack[0]["accuracy"] - 0.05  # what we are ready to lose
best_look = max((row for row in hack if row["accuracy"] >= floor), key=lambda row: row["climbed"])
print(f"stop after {best_look['seconds']:.0f} s: redness {hack[0]['climbed']:.3f} -> {best_look['climbed']:.3f}, "
      f"accuracy {hack[0]['accuracy']:.3f} -> {best_look['accuracy']:.3f}")  # fmt: skip

# %% [markdown] goal="10.7"
# **A KL to the base.** Where steps draw noise, each is a Gaussian, and the distance of yours to the base's is exact.
# Both have the *same* deviation $s$:
#
# $$\mathrm{KL} = \frac1d \sum_j \frac{(\mu_j - \mu^{\text{base}}_j)^2}{2 s^2}$$
#
# with $d$ numbers in a latent. Both means were computed at *your* state, and that depends on your weights through the
# steps before. So both have a gradient, and both belong in it. Return one value a sample.


# %% exercise={"id": "10.7", "name": "step_kl", "title": "The KL brake", "points": 2, "minutes": 8, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def step_kl(
    mean: Float[Tensor, "batch ..."], base_mean: Float[Tensor, "batch ..."], std: Float[Tensor, ""]
) -> Float[Tensor, "batch"]:
    """KL between two Gaussian steps of equal deviation, averaged over all dimensions but the first."""
    ### BEGIN SOLUTION
    gaps = (mean - base_mean) ** 2 / (2 * std**2)
    return gaps.flatten(1).mean(dim=1)
    ### END SOLUTION


# %% [markdown] hints="10.7"
# <details><summary>Hint 1: in units of the noise</summary>
#
# The gap between the means counts for more where the step draws little noise: square it, divide by twice the variance.
#
# </details>
# <details><summary>Hint 2: which dimensions</summary>
#
# Dimension 0 counts the samples and stays. `flatten(1)` lays the rest out in one row; take its mean.
#
# </details>
# <details><summary>Hint 3: gradients</summary>
#
# Detach neither mean. If you did, the early steps would be pushed towards states where the base *happens* to be.
#
# </details>

# %% check="10.7"
check("10.7", step_kl)

# %% [markdown]
# The last step draws no noise, so a KL needs a longer window and a sampler with noise. Redness again, with the
# KL's weight as the only difference, and the proxy, where the brake should cost little:

# %%
pieces["kl_of"] = step_kl
noisy = replace(policy, transition=partial(ddim_eta, noise=1.0))
braked = {}
runs = {"redness, KL 0": (warm, 0.0, 9.0), "redness, KL 30": (warm, 30.0, 9.0), "proxy, KL 1": (proxy, 1.0, 12.0)}
for name, (reward, weight, budget) in list(runs.items())[choose(smoke=1, cpu=0, gpu=0) :]:
    student = base.student()
    algorithm = learner(
        student, reward=reward, policy=replace(noisy, generator=student),
        choose_window=lambda steps, rng: (steps - 2, steps), config=replace(settings, kl_weight=weight),
    )  # fmt: skip
    budget = choose(smoke=0.1, cpu=budget, gpu=100 * budget)
    braked[name] = train(algorithm, budget, rate=SLOWER * 3e-4, climbed=reward)
panels(braked, ("climbed", "proxy", "accuracy", "diversity"), "Four scores with and without a KL to the base.")

# %% [markdown] goal="10.8"
# **Less to train.** A LoRA leaves a layer's weight $W$ (`[outputs, inputs]`) frozen and adds the product of two thin
# matrices, `down` ($A$, `[rank, inputs]`) and `up` ($B$, `[outputs, rank]`):
#
# $$y = xW^\top + b + \frac{\alpha}{\text{rank}}\, x A^\top B^\top$$
#
# The bias $b$ may be None. $B$ begins at 0, so training begins at the base. And $\alpha$ stays a dial after training:
# at 0 the layer is the base's, at $2\alpha$ it has gone twice as far.


# %% exercise={"id": "10.8", "name": "lora_linear", "title": "A low-rank layer", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "peft", "pixelpolicy.pipelines"]}
def lora_linear(
    x: Float[Tensor, "... inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, "outputs"] | None,
    down: Float[Tensor, "rank inputs"],
    up: Float[Tensor, "outputs rank"],
    alpha: float,
) -> Float[Tensor, "... outputs"]:
    """A frozen linear layer and its low-rank adapter."""
    ### BEGIN SOLUTION
    scale = alpha / down.shape[0]
    return F.linear(x, weight, bias) + scale * (x @ down.T @ up.T)
    ### END SOLUTION


# %% [markdown] hints="10.8"
# <details><summary>Hint 1: the frozen part</summary>
#
# `F.linear(x, weight, bias)` is the old layer, with and without a bias.
#
# </details>
# <details><summary>Hint 2: thin first</summary>
#
# `x @ down.T` has only `rank` numbers; `@ up.T` brings them to the outputs. The big product $BA$ is never built.
#
# </details>
# <details><summary>Hint 3: the scale</summary>
#
# alpha divided by the rank, which is the number of rows of `down`.
#
# </details>

# %% check="10.8"
check("10.8", lora_linear)


# %% [markdown]
# Now your layer takes the place of each projection of attention in a copy of the base, and nothing else is trained.


# %%
class LowRank(nn.Module):
    """A frozen linear layer with your adapter."""

    def __init__(self, frozen: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.frozen, self.alpha = frozen, alpha
        stream = torch.Generator().manual_seed(seed())
        start = torch.randn(rank, frozen.in_features, generator=stream) / rank
        self.down = nn.Parameter(start.to(frozen.weight.device))
        self.up = nn.Parameter(torch.zeros(frozen.out_features, rank, device=frozen.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        down, up = self.down.to(x.dtype), self.up.to(x.dtype)
        return lora_linear(x, self.frozen.weight, self.frozen.bias, down, up, self.alpha)


def adapted(network: nn.Module, rank: int, alpha: float) -> nn.Module:
    """A copy of a frozen network with `LowRank` in its attention; the frozen weights are shared."""
    network = sharing_copy(network.requires_grad_(False))
    ends = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    for name, layer in list(network.named_modules()):
        if name.endswith(ends) and isinstance(layer, nn.Linear):
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, LowRank(layer, rank, alpha))
    return network


# %%
low = replace(base, transformer=adapted(base.transformer, rank=4, alpha=4.0))
share = sum(p.numel() for p in low.transformer.parameters() if p.requires_grad)
whole = sum(p.numel() for p in base.transformer.parameters())
print(f"trained: {share:,} numbers, {share / whole:.1%} of the network's {whole:,}")
budget = choose(smoke=0.1, cpu=9.0, gpu=900.0)
climb_warm = learner(low, reward=warm, choose_window=methods["DRaFT-1"]["choose_window"])
lora_log = train(climb_warm, budget, rate=choose(smoke=1e-3, cpu=2e-3, gpu=3e-4), climbed=warm)


# %%
def scaled(network: nn.Module, factor: float) -> None:
    """Turn the dial of every adapter."""
    for layer in network.modules():
        if isinstance(layer, LowRank):
            layer.alpha = 4.0 * factor


dial = choose(smoke=(0.0, 1.0), cpu=(0.0, 0.1, 0.25, 0.5, 1.0, 1.5), gpu=(0.0, 0.25, 0.5, 1.0))
swept = []
for factor in dial:
    scaled(low.transformer, factor)
    swept.append(look(low, warm) | {"factor": factor})
scaled(low.transformer, 1.0)
viz.curves(
    {key: (list(dial), [row[key] for row in swept]) for key in ("climbed", "proxy", "accuracy", "diversity")},
    xlabel="scale of the adapter (1 is as trained)", ylabel="score",
    alt="Four scores against the scale of the adapter, 0 for the base, 1 as trained: "
    + "; ".join(f"{r['factor']:g}: climbed {r['climbed']:.2f}, accuracy {r['accuracy']:.2f}" for r in swept),
)  # fmt: skip

# %% [markdown]
# **Turn the dial back.** At 0 you have the base, at 1 what you trained, between them everything in between, without any
# further training. Beyond 1 you see where training was heading.
#
# Be clear about what a brake can do. It chooses a place on the way from the base to the summit. Redness has no good
# place on that way: every bit of it costs accuracy, and a strong KL merely keeps you at the base. The proxy has one,
# because for a long stretch it wants what you want. Brakes buy you time to look. They do not mend a reward.
#
# ## 11. The account
#
# All of it beside the baseline that needs no training: draw N pictures of the base and keep one that the verifier
# likes.

# %%
finalist = max((name for name in methods), key=lambda name: logs[name][-1]["accuracy"])
PER_KIND = choose(smoke=1, cpu=128, gpu=64)
before, after = (evaluate(generator, "test", per_kind=PER_KIND) for generator in (base, trained[finalist]))
best = best_of(base, (1, 4, 12), per_kind=choose(smoke=1, cpu=16, gpu=8))
rows = [("base", 0.0, logs["DRaFT-1"][0])] + [(name, log[-1]["seconds"], log[-1]) for name, log in logs.items()]
rows += [("DRaFT-1 on redness", hack[-1]["seconds"], hack[-1])]
rows += [(f"DRaFT-2 on {name}", log[-1]["seconds"], log[-1]) for name, log in braked.items()]
rows += [("LoRA of rank 4 on redness", lora_log[-1]["seconds"], lora_log[-1])]
lines = [f"| {name} | {s:.0f} | {r['proxy']:.3f} | {r['accuracy']:.3f} | {r['diversity']:.3f} |" for name, s, r in rows]
lines += [f"| *base, best of {n}* | | | *{accuracy:.3f}* | |" for n, accuracy in best.items()]
Markdown("\n".join(["| | seconds | proxy | accuracy | diversity |", "|---|---|---|---|---|", *lines]))

# %%
print(f"{finalist}, on {4 * PER_KIND} test pairs that nothing was chosen on: accuracy {before['accuracy']:.3f} -> "
      f"{after['accuracy']:.3f}, diversity {np.nan_to_num(before['diversity']):.3f} -> "
      f"{np.nan_to_num(after['diversity']):.3f}")  # fmt: skip

# %% [markdown]
# ## 12. The long run
#
# How far does a reward gradient get with its brakes on? The recorded long run goes on for longer, with a KL, on the
# small model under `gpu` too.

# %%
long = kept("10-reward-gradient-long")
for run in long:
    accuracy, spread = run["metrics"]["accuracy"], run["metrics"]["diversity"]
    print(f"seed {run['seed']}: {run['cpu_seconds']:.0f} CPU s, accuracy {accuracy['before']:.3f} -> "
          f"{accuracy['after']:.3f}, diversity {spread['before']:.3f} -> {spread['after']:.3f}")  # fmt: skip
if long:
    tuned = recorded.apply("10-reward-gradient-long", long[0]["seed"], load("shapes").to(device))
    final = tuned.generate(sheet_prompts, sheet_seeds)
    told = [verdict.strict for verdict in shapes.verify(final.cpu().numpy(), sheet_prompts)]
    alt = f"The long run's pictures: {sum(told)} of {len(told)} match their prompts."
    display(viz.sample_sheet(final, sheet_prompts, accepted=told, alt=alt))

# %% [markdown]
# ## What to take away
#
# - A reward with a gradient tells *which way*; a reward without one only *how good*. The race shows what that is worth.
# - Truncation, a leap, a random cut, checkpointing: four answers to the same question, how much of the sampler to
#   differentiate.
# - The gradient climbs the reward that you have, not the one that you meant. Keep a check that nobody climbs, and stop.
# - A KL, a small adapter, a dial turned back: brakes slow the hack as well as the gain. None replaces the check.
#
# Human preference comes without a gradient *and* without a number: which of two is better? That is lab 11.
#
# The cell below writes down what happened here.


# %%
def change(key: str) -> dict[str, float]:
    """A score of the best of the four methods, before and after; no diversity is 0."""
    return {"before": float(np.nan_to_num(before[key])), "after": float(np.nan_to_num(after[key]))}


def ends(log: list[dict[str, float]]) -> dict[str, float]:
    return {key: log[-1][key] for key in ("seconds", "climbed", "proxy", "accuracy", "diversity")}


record = write_record(
    "10-reward-gradient",
    ({"rehearsal": int(rehearsing())} if real_model() else {})
    | {"accuracy": change("accuracy"), "diversity": change("diversity"), "base": start}
    | {"methods": {name: ends(log) for name, log in logs.items()}, "goal": goal}
    | {"seconds_to_goal": {name: value for name, value in times.items() if np.isfinite(value)}}
    | {"hack": ends(hack) | {"before": hack[0]}}
    | {"brakes": {name: ends(log) for name, log in braked.items()}, "lora": ends(lora_log)}
    | {"proxy_order": right, "best_of_n": {str(n): accuracy for n, accuracy in best.items()}},
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/10.json")
