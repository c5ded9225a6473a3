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
# # Lab 11: this one rather than that one
#
# People find it hard to say how good a picture is. They find it easy to say which of two is better. In this lab a
# thousand such choices, made once and kept in a file, will train the text-to-image model: no reward is asked while it
# trains, no reward model is fitted, and no trajectory is stored.
#
# You will write **Diffusion-DPO** and watch it rise at once, and then waver while its loss looks better and better. You
# will measure what goes on, and mend it. Then you will write its relatives: **Diffusion-KTO**, which needs no pairs, **D3PO**, whose
# loss hardly moves, and **SPO**, which judges single steps.
#
# You need lab 05, where DPO met worlds so small that its answer was known. Eight exercises, about 75 minutes; the
# trainings take some minutes more. Chapter 11 is the text beside it.

# %% [markdown]
# <details><summary>You have a CUDA card? The profile <code>gpu</code> lets the same functions of yours train Stable
# Diffusion 1.5, the model that Diffusion-DPO, D3PO, Diffusion-KTO and SPO were published on.</summary>
#
# | profile `gpu` | |
# |---|---|
# | model | Stable Diffusion 1.5, 512 x 512 pixels: `stable-diffusion-v1-5/stable-diffusion-v1-5` |
# | licence | CreativeML Open RAIL-M; not gated |
# | disk | 4.3 GB |
# | VRAM, loading (estimate, unmeasured) | 2.3 GB |
# | VRAM, training (estimate, unmeasured) | 2.1 GB of weights and optimiser; activations come on top, 2.2 GB a sample |
# | trained | a LoRA of rank 4, alpha 4, in float32; the rest is frozen, in bfloat16 |
# | a 24 GB card, which `gpu` is set for | 256 prompts x 4 pictures, `micro_batch` 8: 19.5 GB by the same estimate |
# | as Diffusion-DPO published | beta 5000, 2,000 steps of 2,048 pairs, 851,000 pairs that people chose |
# | this course's choice | learning rate 1e-4; guidance 5 and 50 steps where pictures are drawn |
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
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from IPython.display import Markdown, display
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

# %%
from pixelpolicy import viz
from pixelpolicy.course import check, recorded
from pixelpolicy.course.results import start_timer, write_record
from pixelpolicy.errors import LabError
from pixelpolicy.finetune import (
    D3PO,
    SPO,
    DiffusionDPO,
    DiffusionKTO,
    Labelled,
    Loop,
    LoopConfig,
    Pairs,
    PreferenceConfig,
    StepPreferenceConfig,
)
from pixelpolicy.finetune.noising import matching_errors, pictures_of
from pixelpolicy.generators import best_of, evaluate, load
from pixelpolicy.pipelines import sd15
from pixelpolicy.policies import DenoisingPolicy, ddim_eta, ode
from pixelpolicy.profiles import choose, real_model, rehearsing, seed
from pixelpolicy.rewards import learned_proxy, shapes_dense
from pixelpolicy.rl import Reward
from pixelpolicy.worlds import shapes

# %% [markdown]
# ## 1. A thousand choices
#
# The base is that of all labs on images. The one who chooses is simulated: it prefers the picture that the dense
# verifier of lab 08 scores higher. For the random twin of a rehearsal, whose pictures all score alike, the learned
# proxy chooses.

# %%
lab_clock = start_timer()
device = "cuda" if torch.cuda.is_available() else "cpu"
GUIDANCE = choose(smoke=1.0, cpu=1.0, gpu=5.0)
if real_model():
    base = sd15.load_for_profile(template="a flat drawing of {prompt} on a black background")
    base.remember(shapes.prompts())  # each prompt is encoded once; then
    base.forget_text_encoders()  # the encoder can go
else:
    base = load("shapes").to(device)


# %%
def small(pictures: Tensor) -> Tensor:
    """Pictures of the proxy's 32 x 32 pixels: averaged down where they are larger."""
    return F.avg_pool2d(pictures, pictures.shape[-1] // 32)


proxy = Reward("proxy", lambda pictures, prompts: learned_proxy()(small(pictures), prompts))
chooser = proxy if rehearsing() else shapes_dense()
PER_KIND, LOOK = choose(smoke=2, cpu=256, gpu=64), choose(smoke=1, cpu=48, gpu=16)
before = evaluate(base, "test", per_kind=PER_KIND, guidance_scale=GUIDANCE)
best = best_of(base, (1, 4, 12), per_kind=choose(smoke=1, cpu=16, gpu=16), guidance_scale=GUIDANCE)
print(f"accuracy of the base: {before['accuracy']:.3f}; best of N: "
      + ", ".join(f"{count}: {accuracy:.2f}" for count, accuracy in best.items()))  # fmt: skip

# %% [markdown] goal="11.1"
# Four pictures of each prompt are drawn; the best and the worst of the four make a pair. You are given the `rewards`
# of a batch and the number of the group that each sample belongs to. Return two tensors: the *rows* of the winners and
# of the losers, one of each a group, groups in the order in which they first appear. A group whose rewards are all
# equal has no winner and makes no pair.


# %% exercise={"id": "11.1", "name": "best_and_worst", "title": "Pairs from groups", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def best_and_worst(
    rewards: Float[Tensor, "batch"], groups: Int[Tensor, "batch"]
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """The rows of the best and of the worst sample of each group."""
    ### BEGIN SOLUTION
    best, worst = [], []
    for group in dict.fromkeys(groups.tolist()):
        rows = (groups == group).nonzero().flatten()
        mine = rewards[rows]
        if mine.max() > mine.min():
            best.append(int(rows[mine.argmax()]))
            worst.append(int(rows[mine.argmin()]))
    return torch.tensor(best, dtype=torch.long), torch.tensor(worst, dtype=torch.long)
    ### END SOLUTION


# %% [markdown] hints="11.1"
# <details><summary>Hint 1: the members</summary>
#
# `(groups == 7).nonzero().flatten()` gives the rows of group 7. `dict.fromkeys(groups.tolist())` gives each group once,
# in the order in which they appear; `unique()` would sort them.
#
# </details>
# <details><summary>Hint 2: places and rows</summary>
#
# `argmax` of a group's rewards is a place *within* the group. Look up the row there: `rows[place]`.
#
# </details>
# <details><summary>Hint 3: flat groups</summary>
#
# Skip a group whose highest reward is not above its lowest. Where nothing is left, return empty tensors of whole
# numbers: `torch.tensor([], dtype=torch.long)`.
#
# </details>

# %% check="11.1"
check("11.1", best_and_worst)

# %% [markdown]
# Draw the pictures and let your function make the pairs. From here on these pairs are all there is: **offline** data,
# as if people had clicked on them a year ago.

# %%
STEPS = choose(smoke=3, cpu=6, gpu=50)
sampler = DenoisingPolicy(
    base,
    ode,
    steps=choose(smoke=4, cpu=10, gpu=50),
    guidance_scale=GUIDANCE,
    micro_batch=choose(smoke=96, cpu=96, gpu=8),
)
PROMPTS, OF = choose(smoke=12, cpu=1060, gpu=256), 4
rng = np.random.default_rng([seed(), 11])
texts = [text for text in shapes.draw_prompts(PROMPTS, rng) for _ in range(OF)]
drawn = sampler.rollout(texts, seeds=torch.from_numpy(rng.integers(2**62, size=len(texts))))
scores = chooser(drawn.samples, texts)
winners, losers = (rows[:1000] for rows in best_and_worst(scores, torch.arange(PROMPTS).repeat_interleave(OF)))

# %%
latents = pictures_of(drawn).float()
pairs = Pairs([texts[row] for row in winners], latents[winners], latents[losers])
print(f"{len(pairs)} pairs of {len(texts)} pictures; winners score {scores[winners].mean():.2f} in the mean, "
      f"losers {scores[losers].mean():.2f}")  # fmt: skip
shown = [*winners[:8].tolist(), *losers[:8].tolist()]
viz.sample_sheet(
    drawn.samples[shown],
    [f"{texts[row]}: {scores[row]:.2f}" for row in shown],
    accepted=[verdict.strict for verdict in shapes.verify(drawn.samples[shown].numpy(), [texts[r] for r in shown])],
    columns=max(len(shown) // 2, 1),
    alt="Two rows for the same eight prompts: above the winners, most as asked, below the losers, with wrong colours, "
    "shapes or numbers.",
)

# %% [markdown]
# ## 2. DPO, where there is no likelihood
#
# Lab 05 gave the loss of DPO, with $\ell$ the log-probability of a sample and $\ell^{\text{ref}}$ that under the base:
#
# $$L = -\log \sigma\big(\beta\,[(\ell_w - \ell_w^{\text{ref}}) - (\ell_l - \ell_l^{\text{ref}})]\big)$$
#
# For a diffusion model nobody can compute $\ell$ of a picture. Diffusion-DPO puts in its place minus the error that the
# model was *trained* with: add noise to the picture, let the network predict it away, and take the mean square of what
# it misses. Little error, likely picture.
#
# That error depends on the noise and on how much of it there is, far more than on the picture. So winner and loser of
# a pair must be given the **same** noise at the same level.

# %% [markdown] goal="11.2"
# Write it. A latent $x_0$ at the noise level $\sigma$ between 0 and 1 is $(1-\sigma)\,x_0 + \sigma\,\varepsilon$. Each
# call of `draw()` gives new levels `sigma`, `[pairs]`, and new noise, `[pairs, ...]`. Return the noisy winners, the
# noisy losers, the levels and the noise.


# %% exercise={"id": "11.2", "name": "pair_states", "title": "One noise for both", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def pair_states(
    winners: Float[Tensor, "pairs ..."],
    losers: Float[Tensor, "pairs ..."],
    draw: Callable[[], tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs ..."]]],
) -> tuple[Tensor, Tensor, Float[Tensor, "pairs"], Float[Tensor, "pairs ..."]]:
    """Noisy winners and noisy losers, the noise levels, the noise."""
    ### BEGIN SOLUTION
    sigma, noise = draw()
    level = sigma.reshape(-1, *[1] * (winners.ndim - 1))
    return (1 - level) * winners + level * noise, (1 - level) * losers + level * noise, sigma, noise
    ### END SOLUTION


# %% [markdown] hints="11.2"
# <details><summary>Hint 1: how often</summary>
#
# Two calls of `draw` give two different noises. Call it once.
#
# </details>
# <details><summary>Hint 2: shapes</summary>
#
# `sigma` has one number a pair. To multiply a latent of any shape with it, give it as many dimensions:
# `sigma.reshape(-1, 1, 1, 1)` for four, or `[1] * (winners.ndim - 1)` for however many there are.
#
# </details>
# <details><summary>Hint 3: which weight is whose</summary>
#
# At level 0 the state is the picture itself, at level 1 it is nothing but noise.
#
# </details>

# %% check="11.2"
check("11.2", pair_states)


# %% [markdown]
# What is it worth? Take the base's error on the winner less that on the loser, the thing that everything here is made
# of, for the same pairs with many draws of noise. Once with your function, once with noise of its own for each.


# %%
@torch.no_grad()
def error_gap(shared: bool, stream: torch.Generator, count: int = 96) -> Tensor:
    """Winner's error less loser's, for the first pairs and one draw of noise."""
    some = pairs.select(slice(0, count))
    level = torch.randn(len(some), generator=stream).sigmoid()  # levels as in training
    noise = torch.randn(some.winners.shape, generator=stream)
    other = (level, noise) if shared else (torch.randn(len(some)).sigmoid(), torch.randn_like(noise))
    errors = []
    for x0, (sigma, x1) in ((some.winners, (level, noise)), (some.losers, other)):
        state, _, sigma, x1 = (t.to(device) for t in pair_states(x0, x0, lambda s=sigma, e=x1: (s, e)))
        errors.append(matching_errors(base.velocity(state, sigma, *base.encode(some.prompts)), x0.to(device), x1))
    return (errors[0] - errors[1]).cpu()


draws = choose(smoke=2, cpu=12, gpu=12)
torch.manual_seed(seed() + 1)  # not the seed of the shared noise below
gaps = {}
for shared in (True, False):
    stream = torch.Generator().manual_seed(seed())
    gaps[shared] = torch.stack([error_gap(shared, stream) for _ in range(draws)]).std(0).mean().item()
print(f"spread of one pair's gap over draws of noise: shared {gaps[True]:.3f}, each its own {gaps[False]:.3f}")

# %% [markdown] goal="11.3"
# Now the loss. `winner` and `loser` are the errors of the network in training, `base_winner` and `base_loser` those of
# the frozen base at the same noise, one number a pair each:
#
# $$L = \operatorname{mean}\; -\log\sigma\Big(-\frac{\beta}{2}\big[(e_w - e_w^{\text{base}}) -
# (e_l - e_l^{\text{base}})\big]\Big)$$
#
# Mind the sign: an error is *minus* a log-probability. No gradient reaches the base's numbers.


# %% exercise={"id": "11.3", "name": "diffusion_dpo", "title": "Diffusion-DPO", "points": 3, "minutes": 12, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def diffusion_dpo(
    winner: Float[Tensor, "pairs"],
    loser: Float[Tensor, "pairs"],
    base_winner: Float[Tensor, "pairs"],
    base_loser: Float[Tensor, "pairs"],
    beta: float,
) -> Float[Tensor, ""]:
    """The loss of Diffusion-DPO from four errors a pair."""
    ### BEGIN SOLUTION
    won, lost = winner - base_winner.detach(), loser - base_loser.detach()
    return -F.logsigmoid(-beta / 2 * (won - lost)).mean()
    ### END SOLUTION


# %% [markdown] hints="11.3"
# <details><summary>Hint 1: two changes</summary>
#
# First by how much each error has changed against the base's. Then the difference of the two changes.
#
# </details>
# <details><summary>Hint 2: the sigmoid's logarithm</summary>
#
# `F.logsigmoid` is exact where `log(sigmoid(x))` would be minus infinity.
#
# </details>
# <details><summary>Hint 3: the order</summary>
#
# Each pair has a sigmoid of its own. The mean over pairs is the very last thing you take.
#
# </details>

# %% check="11.3"
check("11.3", diffusion_dpo)

# %% [markdown]
# ## 3. Train it, and watch both
#
# One function trains all that follows: so many iterations, and now and then a look at the averaged weights with the
# strict verifier, on prompts and seeds kept for that. It also keeps the weights of the best look.

# %%
BETA = choose(smoke=100.0, cpu=100.0, gpu=5000.0)
RATE = choose(smoke=3e-4, cpu=3e-4, gpu=1e-4)
EVERY = choose(smoke=1, cpu=15, gpu=20)
students, kept, logs = {}, {}, {}


def train(
    name: str, algorithm, iterations: int, rate: float = RATE, every: int = EVERY, watch=lambda: {}
) -> list[dict]:
    """Train, looking now and then; the log of the looks, the first of which is the base."""
    generator, log = algorithm.policy.generator, [{"iteration": 0, "accuracy": start["accuracy"]} | watch()]

    def look(loop: Loop, metrics: dict[str, float]) -> None:
        if loop.iteration % every == 0 or loop.iteration == iterations:
            with loop.averaged_weights():
                scores = evaluate(generator, "validation", per_kind=LOOK, guidance_scale=GUIDANCE)
                if scores["accuracy"] >= max(row["accuracy"] for row in log[1:] or [{"accuracy": 0.0}]):
                    kept[name] = {key: value.clone() for key, value in algorithm.model.state_dict().items()}
                log.append(metrics | scores | watch())

    Loop(algorithm, LoopConfig(iterations, rate, warmup_iterations=4, name=name)).run([look])
    students[name], logs[name] = generator, log
    return log


start = evaluate(base, "validation", per_kind=LOOK, guidance_scale=GUIDANCE)

# %%
ITERATIONS = choose(smoke=2, cpu=60, gpu=200)
settings = PreferenceConfig(
    prompts_per_iteration=choose(smoke=8, cpu=64, gpu=32), group_size=OF, minibatches=1, noise_draws=2, seed=seed()
)
policy = DenoisingPolicy(base, ode, steps=STEPS, guidance_scale=GUIDANCE, micro_batch=choose(smoke=96, cpu=96, gpu=8))


def offline(loss_of: Callable, pairs: Pairs) -> DiffusionDPO:
    """Diffusion-DPO on fixed pairs, made of your functions, on a fresh copy of the base."""
    mine = replace(policy, generator=base.student())
    return DiffusionDPO(mine, config=settings, pairs=pairs, loss_of=loss_of, states_of=pair_states)


# %% [markdown] goal="11.4"
# Before it runs, something to watch it with. Write `displacement`, from the same four errors: the mean change of the
# winners' errors against the base, the mean change of the losers', and a share. A pair is **told apart** if its
# winner's change is below its loser's: that is all the loss asks for. The share is, *among the pairs told apart*, of
# those whose winner is nevertheless matched **worse** than by the base (its change is above 0). Where no pair is told
# apart it is 0.


# %% exercise={"id": "11.4", "name": "displacement", "title": "Watching the winner", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def displacement(
    winner: Float[Tensor, "pairs"],
    loser: Float[Tensor, "pairs"],
    base_winner: Float[Tensor, "pairs"],
    base_loser: Float[Tensor, "pairs"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean change of winners and of losers, and the share of winners displaced among pairs told apart."""
    ### BEGIN SOLUTION
    won, lost = winner - base_winner, loser - base_loser
    apart = won < lost
    share = (won[apart] > 0).float().mean() if apart.any() else torch.zeros(())
    return won.mean(), lost.mean(), share
    ### END SOLUTION


# %% [markdown] hints="11.4"
# <details><summary>Hint 1: changes</summary>
#
# A change is the error now less the base's. Above 0 is worse than the base.
#
# </details>
# <details><summary>Hint 2: among those told apart</summary>
#
# `won < lost` is a mask. `won[mask]` are the changes of those winners alone.
#
# </details>
# <details><summary>Hint 3: nothing to count</summary>
#
# The mean of an empty tensor is NaN. Ask `mask.any()` first.
#
# </details>

# %% check="11.4"
check("11.4", displacement)


# %%
@torch.no_grad()
def watched(algorithm: DiffusionDPO) -> dict[str, float]:
    """Your measure on pairs and noise that stay the same from look to look."""
    rows = torch.arange(min(len(pairs), choose(smoke=8, cpu=192, gpu=32)))
    parts = [algorithm.errors(pairs.select(part), 1_000 + part) for part in rows.split(policy.micro_batch // 2)]
    errors, of_base = (torch.cat([torch.stack(p[i].cpu().chunk(2)) for p in parts], 1) for i in (0, 1))
    won, lost, share = displacement(*errors, *of_base)
    return {"winners": won.item(), "losers": lost.item(), "displaced": share.item()}


plain = offline(partial(diffusion_dpo, beta=BETA), pairs)
LONGER = choose(smoke=2, cpu=75, gpu=250)
train("DPO", plain, LONGER, watch=lambda: watched(plain))
top = max(logs["DPO"], key=lambda row: row["accuracy"])
lowest = min(row["accuracy"] for row in logs["DPO"] if row["iteration"] >= top["iteration"])
print(f"validation: {start['accuracy']:.3f} at first; the best look {top['accuracy']:.3f}, after {top['iteration']} "
      f"iterations; the lowest from there on {lowest:.3f}; the last {logs['DPO'][-1]['accuracy']:.3f}")  # fmt: skip


# %%
def panels(names: list[str], keys: dict[str, str], alt: str) -> viz.Picture:
    """One panel a measure, one line a run, over iterations; the alternative text ends with where each run ends."""
    figure = Figure(figsize=(3.4 * len(keys), 3.1), layout="constrained")
    for axis, (key, title) in zip(np.atleast_1d(figure.subplots(1, len(keys))), keys.items(), strict=True):
        for style, name in zip(("-", "--", "-.", ":"), names, strict=False):
            rows = [row for row in logs[name] if key in row]
            axis.plot([row["iteration"] for row in rows], [row[key] for row in rows], ls=style, label=name)
        axis.set(xlabel="iteration", title=title)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if key == "accuracy":
            axis.axhline(start["accuracy"], color="#777777", ls=(0, (5, 2)), lw=1, label="base")
    figure.axes[0].legend(frameon=False, fontsize=8)
    ends = "; ".join(f"{n}, " + ", ".join(f"{t} {logs[n][-1][k]:.2f}" for k, t in keys.items()) for n in names)
    return viz.picture(figure, alt=f"{alt} Where they end: {ends}.")


# %%
WATCHED = {"accuracy": "accuracy", "winners": "winners' error", "losers": "losers' error", "displaced": "displaced"}
panels(["DPO"], WATCHED, "Accuracy, change of the winners' and of the losers' error, and the share displaced, for DPO.")

# %% [markdown]
# Begin with the second and the third panel. The *winners'* error grows, without a pause. So does the losers', and
# faster: the network tells the pairs apart by spoiling the losers more than the winners, and that is all that was asked
# of it. The last panel counts, among the pairs told apart, the winners that are now less likely than before any
# training. This is **likelihood displacement**. What has become likelier instead, nobody chose.
#
# Accuracy climbs within the first looks. After that the loss is no guide to it. How far it falls from its best look, and
# whether it comes back, differs from seed to seed; chapter 11 shows those that were recorded. Keep the best look.

# %% [markdown]
# ## 4. An anchor

# %% [markdown] goal="11.5"
# The cure says what was left unsaid: a winner may not be matched worse than by the base. To the loss of 11.3, add
#
# $$\text{anchor}\cdot\frac{\beta}{2}\,\operatorname{mean}\,\max(0,\; e_w - e_w^{\text{base}}).$$
#
# It stands *outside* the sigmoid. Inside, it would fade with the rest as soon as a pair is told apart.


# %% exercise={"id": "11.5", "name": "anchored_dpo", "title": "The mended loss", "points": 3, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def anchored_dpo(
    winner: Float[Tensor, "pairs"],
    loser: Float[Tensor, "pairs"],
    base_winner: Float[Tensor, "pairs"],
    base_loser: Float[Tensor, "pairs"],
    beta: float,
    anchor: float,
) -> Float[Tensor, ""]:
    """The loss of Diffusion-DPO, and a penalty on displaced winners."""
    ### BEGIN SOLUTION
    won, lost = winner - base_winner.detach(), loser - base_loser.detach()
    told = -F.logsigmoid(-beta / 2 * (won - lost)).mean()
    return told + anchor * beta / 2 * won.relu().mean()
    ### END SOLUTION


# %% [markdown] hints="11.5"
# <details><summary>Hint 1: begin with what you have</summary>
#
# The first term is your loss of 11.3, with the same beta.
#
# </details>
# <details><summary>Hint 2: each winner by itself</summary>
#
# Cut every change off at 0, `x.relu()`, and take the mean then. The mean of all changes could hide a displaced winner
# behind one that gained.
#
# </details>
# <details><summary>Hint 3: the scale</summary>
#
# With the factor beta / 2 the penalty is in the units of the margin, so that one anchor serves for every beta. Detach
# the base here too.
#
# </details>

# %% check="11.5"
check("11.5", anchored_dpo)

# %%
ANCHOR = 0.5
mended = offline(partial(anchored_dpo, beta=BETA, anchor=ANCHOR), pairs)
train("anchored DPO", mended, ITERATIONS, watch=lambda: watched(mended))
panels(["DPO", "anchored DPO"], WATCHED, "The same four measures, without the anchor and with it.")

# %% [markdown]
# The winners' error stays where the base had it. The losers' grows far less as well, since what spoils a loser mostly
# spoils its winner too. Note what the anchor does not do: a loser may still be spoilt in ways that help nobody.
#
# ## 5. Old pairs or new ones
#
# Offline pairs show what the *base* gets right and wrong. As the model moves, they tell it less and less about itself.
# **Online** pairs are drawn by the model in training and judged at once. It is dearer: somebody has to be there to
# judge. To be fair, both get the same number of pictures judged, and as many optimiser steps.

# %%
rounds = max(PROMPTS // settings.prompts_per_iteration, 1)
fresh = DiffusionDPO(
    replace(policy, generator=base.student()), chooser, shapes.draw_prompts,
    replace(settings, noise_draws=choose(smoke=2, cpu=7, gpu=7)),
    loss_of=partial(anchored_dpo, beta=BETA, anchor=ANCHOR), states_of=pair_states, choose=best_and_worst,
)  # fmt: skip
train("online", fresh, rounds, every=max(rounds // 4, 1))
judged = rounds * settings.size
print(f"offline: {len(texts)} pictures judged, best look {max(row['accuracy'] for row in logs['anchored DPO']):.3f}")
print(f"online:  {judged} pictures judged, best look {max(row['accuracy'] for row in logs['online']):.3f}")

# %% [markdown]
# ## 6. When the chooser errs
#
# People click on the wrong picture, or disagree. Turn round every tenth pair, then three in ten, and train again.

# %%
SHORT = choose(smoke=1, cpu=30, gpu=100)


def with_errors(share: float) -> Pairs:
    """The same pairs, with winner and loser exchanged in a share of them."""
    turned = torch.rand(len(pairs), generator=torch.Generator().manual_seed(seed())) < share
    mask = turned.reshape(-1, *[1] * (pairs.winners.ndim - 1))
    return Pairs(
        pairs.prompts, torch.where(mask, pairs.losers, pairs.winners), torch.where(mask, pairs.winners, pairs.losers)
    )


for share in (0.1, 0.3):
    train(f"{share:.0%} wrong", offline(partial(anchored_dpo, beta=BETA, anchor=ANCHOR), with_errors(share)), SHORT)
noisy = {"0%": max(row["accuracy"] for row in logs["anchored DPO"] if row["iteration"] <= SHORT)}
noisy |= {f"{share:.0%}": max(row["accuracy"] for row in logs[f"{share:.0%} wrong"]) for share in (0.1, 0.3)}
print("best look within the same iterations:", {name: round(value, 3) for name, value in noisy.items()})

# %% [markdown]
# ## 7. No pairs at all

# %% [markdown] goal="11.6"
# A thumb up or down on a *single* picture is cheaper still. **Diffusion-KTO** learns from that. With the gain of a
# sample, $g = e^{\text{base}} - e$, and $s = 1$ where it was `wanted` and $-1$ where not:
#
# $$L = \operatorname{mean}\; 1 - \sigma\big(s\,\beta\,(g - z)\big), \qquad z = \max(0, \operatorname{mean} g)$$
#
# $z$ is the **point of reference**: what the batch gains anyway, wanted or not. Only what goes beyond counts. It
# carries no gradient, and neither does the base.


# %% exercise={"id": "11.6", "name": "kto_loss", "title": "Thumbs up, thumbs down", "points": 3, "minutes": 12, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def kto_loss(
    errors: Float[Tensor, "batch"], base_errors: Float[Tensor, "batch"], wanted: Bool[Tensor, "batch"], beta: float
) -> Float[Tensor, ""]:
    """The loss of Diffusion-KTO."""
    ### BEGIN SOLUTION
    gain = base_errors.detach() - errors
    point = gain.detach().mean().clamp_min(0)
    sign = torch.where(wanted, 1.0, -1.0)
    return (1 - torch.sigmoid(sign * beta * (gain - point))).mean()
    ### END SOLUTION


# %% [markdown] hints="11.6"
# <details><summary>Hint 1: which way is a gain</summary>
#
# A gain is positive where the network's error is below the base's.
#
# </details>
# <details><summary>Hint 2: the point of reference</summary>
#
# Take the mean of the detached gains, and not less than 0: `clamp_min(0)`.
#
# </details>
# <details><summary>Hint 3: the sign</summary>
#
# `torch.where(wanted, 1.0, -1.0)` turns labels into signs. There is no logarithm in this loss.
#
# </details>

# %% check="11.6"
check("11.6", kto_loss)

# %% [markdown]
# It gets the very same pictures, as 1,000 wanted and 1,000 unwanted ones. Who was compared with whom is forgotten. An
# iteration has as many pictures as one of DPO, each with noise of its own.

# %%
single = replace(settings, prompts_per_iteration=max(settings.prompts_per_iteration * 2 // OF, 1))
kto = DiffusionKTO(
    replace(policy, generator=base.student()), config=single, labelled=Labelled.of_pairs(pairs),
    loss_of=partial(kto_loss, beta=BETA),
)  # fmt: skip
train("KTO", kto, choose(smoke=2, cpu=45, gpu=200))
panels(["DPO", "anchored DPO", "KTO"], {"accuracy": "accuracy", "diversity": "diversity"},
       "Accuracy and diversity of three losses on the same pictures.")  # fmt: skip

# %% [markdown]
# The logarithm of DPO's sigmoid pulls hardest where a pair is told apart wrongly, however far off it is. KTO's bare
# sigmoid is flat on *both* sides: it gives up on samples that are out of reach, and rests where a sample has gained
# enough. Where the choices of a loss matter so much, compare on your own data before you believe a paper, or us.
#
# ## 8. Preferences over steps

# %% [markdown] goal="11.7"
# Sampled with noise, each step of a trajectory *has* a log-probability (lab 07). **D3PO** applies DPO to steps: every
# step of the better trajectory is preferred to that of the worse. With ratios $\rho = e^{\ell - \ell^{\text{base}}}$,
# each clipped to $1 \pm c$:
#
# $$L = \operatorname{mean}\; -\log\sigma\big(\beta\,[\log\operatorname{clip}\rho_w -
# \log\operatorname{clip}\rho_l]\big)$$


# %% exercise={"id": "11.7", "name": "step_loss", "title": "Preferred steps", "points": 2, "minutes": 8, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def step_loss(
    winner: Float[Tensor, "pairs"],
    loser: Float[Tensor, "pairs"],
    base_winner: Float[Tensor, "pairs"],
    base_loser: Float[Tensor, "pairs"],
    beta: float,
    clip_range: float,
) -> Float[Tensor, ""]:
    """D3PO's loss from the log-probabilities of steps and those under the base."""
    ### BEGIN SOLUTION
    ratios = [torch.exp(new - old.detach()) for new, old in ((winner, base_winner), (loser, base_loser))]
    won, lost = (ratio.clamp(1 - clip_range, 1 + clip_range).log() for ratio in ratios)
    return -F.logsigmoid(beta * (won - lost)).mean()
    ### END SOLUTION


# %% [markdown] hints="11.7"
# <details><summary>Hint 1: no errors here</summary>
#
# These are log-probabilities: the winner's is to rise. The sign is not that of 11.3, and there is no half.
#
# </details>
# <details><summary>Hint 2: clip what</summary>
#
# Clip the ratios, after `exp` and before `log`: `clamp(1 - clip_range, 1 + clip_range)`.
#
# </details>
# <details><summary>Hint 3: the rest</summary>
#
# The base is detached, each pair has its own `F.logsigmoid`, the mean comes last.
#
# </details>

# %% check="11.7"
check("11.7", step_loss)

# %% [markdown]
# "My D3PO loss is stuck at 0.693." Compute, before you train, between which bounds it *can* move with the published
# settings, $\beta = 0.1$ and $c = 0.1$:

# %%
ends = [torch.tensor([x]) for x in (9.0, -9.0, 0.0, 0.0)]
bounds = [step_loss(*(sign * x for x in ends), beta=0.1, clip_range=0.1).item() for sign in (1, -1)]
print(f"the loss lies between {bounds[0]:.4f} and {bounds[1]:.4f}; log 2 is {np.log(2):.4f}")

# %%
noisy_policy = replace(policy, transition=partial(ddim_eta, noise=1.0))
steps = StepPreferenceConfig(
    prompts_per_iteration=choose(smoke=3, cpu=48, gpu=16), group_size=OF, minibatches=choose(smoke=1, cpu=2, gpu=2),
    seed=seed(),
)  # fmt: skip
by_steps = D3PO(
    replace(noisy_policy, generator=base.student()), chooser, shapes.draw_prompts, steps,
    loss_of=partial(step_loss, beta=0.1, clip_range=0.1), choose=best_and_worst,
)  # fmt: skip
STEP_RATE = choose(smoke=1.5e-4, cpu=1.5e-4, gpu=3e-5)
train("D3PO", by_steps, choose(smoke=1, cpu=9, gpu=60), rate=STEP_RATE, every=choose(smoke=1, cpu=3, gpu=10))
for row in logs["D3PO"][1:]:
    print(f"iteration {row['iteration']:2d}: loss {row['loss']:.4f}, reward {row['reward']:.3f}, ratio of winners "
          f"{row['winner_ratio']:.4f}, of losers {row['loser_ratio']:.4f}")  # fmt: skip


# %% [markdown]
# The loss is stuck at 0.693, and the ratios do move. Both are as they must be. A log-probability here is a *mean* over
# the numbers of a latent, so that a step moves it by a few thousandths, and $\beta = 0.1$ makes a tenth of that. Where
# the sigmoid is so near its middle its slope is constant: D3PO is a policy gradient with a reward of $+1$ for the
# winner and $-1$ for the loser, and as with every policy gradient the loss tells you nothing. Look at the reward.
# Neither does the clip at $1 \pm 0.1$ hold anything here. A small learning rate is the only brake.
#
# Did you expect the losers' ratio below 1? Both rise above. These are steps that the *trained* model drew, and a model
# finds what it draws likelier than the base does: the mean of the log-ratio is exactly the KL between them.

# %% [markdown] goal="11.8"
# In D3PO all steps share the fate of their picture. **SPO** asks of each step by itself: from *one* state draw several
# next states, judge these, and prefer the best to the worst. Then go on from one of them, drawn by chance.
#
# Write the choice. `scores` has one row a prompt and one column a candidate. Return which candidate is best and which
# is worst in each row. Where all of a row are equal return one and the same for both: a pair of one state with itself
# has no gradient.


# %% exercise={"id": "11.8", "name": "choose_candidates", "title": "SPO's choice", "points": 1, "minutes": 5, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies"]}
def choose_candidates(
    scores: Float[Tensor, "prompts candidates"],
) -> tuple[Int[Tensor, "prompts"], Int[Tensor, "prompts"]]:
    """Which candidate of each row is best, and which is worst."""
    ### BEGIN SOLUTION
    best, worst = scores.argmax(dim=1), scores.argmin(dim=1)
    flat = scores.amax(dim=1) == scores.amin(dim=1)
    return best, torch.where(flat, best, worst)
    ### END SOLUTION


# %% [markdown] hints="11.8"
# <details><summary>Hint 1: which dimension</summary>
#
# `scores.argmax(dim=1)` answers for each row.
#
# </details>
# <details><summary>Hint 2: flat rows</summary>
#
# A row is flat where its largest is its smallest: `amax(dim=1) == amin(dim=1)`.
#
# </details>
# <details><summary>Hint 3: one or the other</summary>
#
# `torch.where(flat, best, worst)` takes the best for both in flat rows.
#
# </details>

# %% check="11.8"
check("11.8", choose_candidates)

# %% [markdown]
# How is a half-made picture judged? SPO trains a preference model on noisy pictures for that. We have the proxy of lab
# 10, which knows clean ones only. So let the base predict the picture that a noisy state points at, and let the proxy
# judge that. Look at what it sees:

# %%
prompt, many = "a red circle left of a blue square", 6
walk = DenoisingPolicy(base, partial(ddim_eta, noise=1.0), steps=STEPS).rollout(
    [prompt] * many, seeds=torch.arange(many)
)
promised, words = [], []
for step in (0, STEPS // 2, STEPS - 2):
    states, sigma = walk.states[:, step + 1].to(device), walk.sigmas[step + 1].to(device)
    with torch.no_grad():
        picture = states + (walk.sigmas[-1] - sigma) * base.velocity(states, sigma, *base.encode([prompt] * many))
        promised.append(base.decode(picture).float().cpu())
    words += [f"after step {step + 1}: {value:.2f}" for value in proxy(promised[-1], [prompt] * many).tolist()]
viz.sample_sheet(
    torch.cat(promised), words, columns=many,
    alt="Three rows of pictures that the base predicts from noisy states, early, in the middle and late, with the "
    "proxy's scores: blurred at first, distinct at the end.",
)  # fmt: skip

# %%
stepwise = SPO(
    replace(noisy_policy, generator=base.student()), proxy, shapes.draw_prompts, steps,
    loss_of=partial(step_loss, beta=10.0, clip_range=0.1), choose=choose_candidates,
)  # fmt: skip
train("SPO", stepwise, choose(smoke=1, cpu=6, gpu=60), rate=STEP_RATE, every=choose(smoke=1, cpu=3, gpu=10))
panels(["D3PO", "SPO"], {"reward": "reward of its own samples", "accuracy": "accuracy (ODE)"},
       "Reward of the noisy samples that are trained on, and accuracy by the ODE, for D3PO and SPO.")  # fmt: skip

# %% [markdown]
# Mind the two panels. What is trained is the *noisy* sampler, and its reward is the left one: the verifier's for D3PO,
# the proxy's for SPO. Prompts change from look to look, so that it jumps. Pictures for the check are drawn by the ODE,
# and a look has a standard error of some hundredths: in so short a run, do not expect either method to leave it. They
# are policy gradients with a reward of plus or minus one, and as hungry for samples as lab 09's. The losses above need
# no sampler at all. A comparison at equal samples over several seeds is in the book.
#
# ## 9. The account
#
# The best look of each on the validation set, and the end of its run.

# %%
lines = ["| | pairs | best look | at its end | diversity there |", "|---|---|---|---|---|"]
lines += [f"| base | | {start['accuracy']:.3f} | | {np.nan_to_num(start['diversity']):.3f} |"]
kinds = {"DPO": "offline", "anchored DPO": "offline", "online": "online", "KTO": "offline, labels"}
kinds |= {"D3PO": "online, steps", "SPO": "online, steps"}
for name, kind in kinds.items():
    looks = logs[name][1:]
    lines.append(f"| {name} | {kind} | {max(row['accuracy'] for row in looks):.3f} | {looks[-1]['accuracy']:.3f} | "
                 f"{np.nan_to_num(looks[-1]['diversity']):.3f} |")  # fmt: skip
lines += [f"| *base, best of {count}* | | *{accuracy:.3f}* | | |" for count, accuracy in best.items()]
Markdown("\n".join(lines))

# %% [markdown]
# The best of many looks flatters. So each chosen checkpoint is measured once more, on the test pairs that nothing was
# chosen on.

# %%
after = {}
for name in ("DPO", "anchored DPO", "KTO"):
    students[name].transformer.load_state_dict(kept[name])
    after[name] = evaluate(students[name], "test", per_kind=PER_KIND, guidance_scale=GUIDANCE)
    print(f"{name:13s} accuracy {before['accuracy']:.3f} -> {after[name]['accuracy']:.3f} "
          f"(standard error {after[name]['accuracy_se']:.3f}), diversity {np.nan_to_num(before['diversity']):.3f} -> "
          f"{np.nan_to_num(after[name]['diversity']):.3f}")  # fmt: skip

# %%
finalist = max(after, key=lambda name: after[name]["accuracy"])
sheet_prompts, sheet_seeds = shapes.evaluation_pairs("test", per_kind=2)
both = torch.cat([g.generate(sheet_prompts, sheet_seeds, guidance_scale=GUIDANCE) for g in (base, students[finalist])])
told = [verdict.strict for verdict in shapes.verify(both.cpu().numpy(), sheet_prompts * 2)]
half = len(sheet_prompts)
viz.sample_sheet(
    both, sheet_prompts * 2, accepted=told,
    alt=f"The same prompts and noise. Above, by the base, {sum(told[:half])} of {half} match; below, after training on "
    f"the thousand choices, {sum(told[half:])}.",
)  # fmt: skip

# %% [markdown]
# Be fair to the baseline: drawing four pictures and keeping the best asks nobody to train. It asks for the verifier at
# every picture. The pairs asked for it once.
#
# ## 10. The long run
#
# How far do labels lead if there are more of them? The recorded long run is Diffusion-KTO on the best and the worst of
# 3,000 groups of four, of the small model under `gpu` too.


# %%
def kept_runs(name: str) -> list[dict]:
    """The records of a benchmark; none where it has not been run yet."""
    try:
        return recorded.records(name)
    except LabError:
        print(f"There is no record {name} in this copy of the course: this section has nothing to show yet.")
        return []


long = kept_runs("11-preferences-long")
for run in long:
    accuracy, spread = run["metrics"]["accuracy"], run["metrics"]["diversity"]
    print(f"seed {run['seed']}: {run['cpu_seconds']:.0f} CPU s, accuracy {accuracy['before']:.3f} -> "
          f"{accuracy['after']:.3f}, diversity {spread['before']:.3f} -> {spread['after']:.3f}")  # fmt: skip
if long:
    tuned = recorded.apply("11-preferences-long", long[0]["seed"], load("shapes").to(device))
    final = tuned.generate(sheet_prompts, sheet_seeds).cpu()
    told = [verdict.strict for verdict in shapes.verify(final.numpy(), sheet_prompts)]
    alt = f"The long run's pictures: {sum(told)} of {len(told)} match their prompts."
    display(viz.sample_sheet(final, sheet_prompts, accepted=told, alt=alt))

# %% [markdown]
# ## What to take away
#
# - A preference needs no number and no gradient. Its loss is a classifier's, on errors that the model was trained with.
# - The same noise for both, or you compare noises.
# - Telling winner from loser is not making the winner likelier. Watch both errors apart; anchor the winner; choose the
#   checkpoint by a check that nobody trains on.
# - A loss of 0.693 is what a healthy D3PO shows.
#
# The cell below writes down what happened here.


# %%
def change(key: str) -> dict[str, float]:
    """A score of the best of the three on the test set, before and after; no diversity is 0."""
    return {"before": float(np.nan_to_num(before[key])), "after": float(np.nan_to_num(after[finalist][key]))}


def run_of(name: str) -> list[dict[str, float]]:
    keys = ("iteration", "accuracy", "diversity", "winners", "losers", "displaced", "loss", "reward")
    return [{key: float(np.nan_to_num(row[key])) for key in keys if key in row} for row in logs[name]]


record = write_record(
    "11-preferences",
    ({"rehearsal": int(rehearsing())} if real_model() else {})
    | {"accuracy": change("accuracy"), "diversity": change("diversity"), "pairs": len(pairs)}
    | {"test": {name: scores["accuracy"] for name, scores in after.items()}}
    | {"test_diversity": {name: float(np.nan_to_num(scores["diversity"])) for name, scores in after.items()}}
    | {"runs": {name: run_of(name) for name in logs}, "label_noise": noisy, "d3po_bounds": bounds}
    | {
        "noise_spread": {"shared": gaps[True], "own": gaps[False]},
        "pictures_judged": {"offline": len(texts), "online": judged},
    }
    | {"best_of_n": {str(count): accuracy for count, accuracy in best.items()}},
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/11.json")
