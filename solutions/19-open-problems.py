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
# # Lab 19: when the reward is wrong
#
# In every lab you had a reward, and beside it a check that nobody climbed. What if you have no check? You have a
# **proxy**, fitted to a few answers of a rater. What you want is **gold**, and you may ask for it only now and then.
# That is how real models are trained.
#
# First you measure how a proxy is *over-optimised*: how gold rises, turns and falls while the proxy goes on rising.
# Then you build brakes, and see what each keeps. Three more open problems follow, each with a measurement: diversity,
# credit, cost. At the end stands the **capstone**: a gold reward that you must not call, a proxy, and twenty questions.
#
# You need chapter 19, and labs 08 and 10. Seven exercises, about 70 minutes; the trainings take five minutes more.

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
# | reward | the same small judges, on pictures averaged down to 32 x 32; they have never seen this model's pictures |
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
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from IPython.display import Markdown
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

# %%
from pixelpolicy import viz
from pixelpolicy.course import check, recorded
from pixelpolicy.course.capstone import Ledger
from pixelpolicy.course.files import course_root
from pixelpolicy.course.results import start_timer, write_record
from pixelpolicy.errors import LabError
from pixelpolicy.finetune import Loop, LoopConfig, RewardGradient, RewardGradientConfig
from pixelpolicy.generators import best_of, load
from pixelpolicy.generators.checkpoint import difference, save_weights
from pixelpolicy.pipelines import sd15
from pixelpolicy.policies import DenoisingPolicy, ddim_eta
from pixelpolicy.profiles import choose, real_model, rehearsing, seed
from pixelpolicy.rewards import ensemble, shapes_dense
from pixelpolicy.rl import Reward
from pixelpolicy.worlds import shapes

# %% [markdown]
# ## 1. A proxy from few answers
#
# **Gold** is the dense verifier: in this lab you play that only a tireless person could say what it says. The person
# was tired after a few hundred answers. So a preference model is fitted to those, as in lab 08. It does not begin from
# nothing, as no reward model in use does: its *body* is lab 10's proxy, which has seen many pictures, and only a small
# *head* learns from the answers. In fact we fit five heads on one body, and use the first. The others come later.

# %%
lab_clock = start_timer()
device = "cuda" if torch.cuda.is_available() else "cpu"
if real_model():
    base = sd15.load_for_profile(decode_batch=1, template="a flat drawing of {prompt} on a black background")
    base.remember(shapes.prompts())
    base.forget_text_encoders()
    base.checkpoint_gradients()
else:
    base = load("shapes").to(device)
policy = DenoisingPolicy(
    base,
    partial(ddim_eta, noise=1.0),
    steps=choose(smoke=3, cpu=6, gpu=50),
    guidance_scale=choose(smoke=1.0, cpu=1.0, gpu=5.0),
    micro_batch=choose(smoke=48, cpu=96, gpu=4),
)


# %%
def small(pictures: Tensor) -> Tensor:
    """Pictures of the judges' 32 x 32 pixels: averaged down where they are larger, with gradient."""
    return F.avg_pool2d(pictures, pictures.shape[-1] // 32)


def draw(generator, prompts: list[str], seeds: Sequence[int]) -> Tensor:
    """Small pictures by the noisy sampler: the policy that is trained, and the one whose distance is measured."""
    rollout = replace(policy, generator=generator).rollout(prompts, seeds=torch.as_tensor(seeds))
    return small(rollout.samples)


gold = shapes_dense()
rng = np.random.default_rng([19, seed()])
DRAWN, PAIRS = choose(smoke=(60, 10), cpu=(800, 200), gpu=(800, 200))
asked = shapes.draw_prompts(DRAWN, rng)
left, right = (draw(base, asked, rng.integers(2**62, size=DRAWN)) for _ in range(2))

# %%
least_gap = 0.0 if rehearsing() else 0.1  # pairs in which there is something to see
answers = ensemble.simulated_comparisons(left, right, asked, least_gap=least_gap, seed=seed())
seen, held = answers[:PAIRS], answers[PAIRS:]
committee = ensemble.fit_committee(seen, members=5, steps=choose(smoke=20, cpu=300, gpu=300), seed=seed())


def judge(combine: Callable[[Tensor], Tensor], name: str) -> Reward:
    """A reward of pictures of any size, by a function of the members' scores [members, batch]."""
    return Reward(name, lambda pictures, prompts: combine(committee(small(pictures), prompts)), differentiable=True)


proxy = judge(lambda scores: scores[0], "proxy")
agreed = {name: ensemble.agreement(proxy, part) for name, part in (("seen", seen), ("held out", held))}
print(f"{len(seen)} answers; the proxy agrees with {agreed['seen']:.2f} of them, and of {len(held)} that it has not "
      f"seen with {agreed['held out']:.2f}")  # fmt: skip

# %% [markdown]
# It knows its answers by heart and is far better than a coin on others. Such a proxy is not bad: the published
# preference models of pictures agree with people hardly more often. The question is what happens when it is climbed.
#
# ## 2. The gentlest climb: the best of N
#
# The simplest way to climb a reward trains nothing. Draw N pictures, keep the one that the proxy likes best. That too
# is a policy, another one than the base, and its distance from the base is known exactly.

# %% [markdown] goal="19.1"
# Ranked by the proxy, a picture of the base has a rank $u$ that is uniform between 0 and 1. The best of $n$ has the
# density $n u^{n-1}$. The KL from the one to the other is an integral that you can do:
#
# $$\mathrm{KL}_n = \int_0^1 n u^{n-1} \log\big(n u^{n-1}\big)\, du = \log n - \frac{n-1}{n}.$$
#
# Write it for a tensor `n` (`[counts]`, numbers of 1 and more), in nats.


# %% exercise={"id": "19.1", "name": "best_of_n_kl", "title": "The price of a choice", "points": 1, "minutes": 4, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards"]}
def best_of_n_kl(n: Float[Tensor, "counts"]) -> Float[Tensor, "counts"]:
    """KL to the base, in nats, of keeping the best of n samples."""
    ### BEGIN SOLUTION
    return torch.log(n) - (n - 1) / n
    ### END SOLUTION


# %% [markdown] hints="19.1"
# <details><summary>Hint 1: nats</summary>
#
# The natural logarithm, `torch.log`.
#
# </details>
# <details><summary>Hint 2: a test in your head</summary>
#
# With n = 1 nothing is chosen: 0 nats.
#
# </details>
# <details><summary>Hint 3: what is taken away</summary>
#
# `(n - 1) / n`, which goes to 1: for large n the KL is `log n - 1`.
#
# </details>

# %% check="19.1"
check("19.1", best_of_n_kl)

# %% [markdown] goal="19.2"
# What is gold of the chosen picture? You could draw N pictures many times over. Better: draw one pool of $M$ pictures a
# prompt and average over *all* ways to choose $n$ of them. Sort the pool by the proxy. The picture with $i$ pictures
# below it ($i = 0, \dots, M-1$) wins when the other $n-1$ all come from below:
#
# $$P(i \text{ wins}) = \binom{i}{n-1} \Big/ \binom{M}{n}.$$
#
# `proxy` and `gold` are `[prompts, samples]`. Return the mean gold of the winner, `[prompts]`.


# %% exercise={"id": "19.2", "name": "expected_best", "title": "All ways to choose", "points": 3, "minutes": 12, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards"]}
def expected_best(
    proxy: Float[Tensor, "prompts samples"], gold: Float[Tensor, "prompts samples"], n: int
) -> Float[Tensor, "prompts"]:
    """Mean gold of the sample with the highest proxy among n, over all ways to choose n."""
    ### BEGIN SOLUTION
    count = proxy.shape[1]
    chances = torch.tensor([math.comb(i, n - 1) / math.comb(count, n) for i in range(count)])
    ranked = gold.gather(1, proxy.argsort(dim=1))
    return (ranked * chances.to(ranked)).sum(1)
    ### END SOLUTION


# %% [markdown] hints="19.2"
# <details><summary>Hint 1: in the proxy's order</summary>
#
# `proxy.argsort(dim=1)` gives the order from the lowest; `gold.gather(1, order)` puts gold into it.
#
# </details>
# <details><summary>Hint 2: binomials</summary>
#
# `math.comb(i, n - 1)` is a whole number of any size, and 0 where i is too small. Divide whole numbers, not floats.
#
# </details>
# <details><summary>Hint 3: the sum</summary>
#
# The chances add up to 1 over the pool. Multiply and sum along dimension 1.
#
# </details>

# %% check="19.2"
check("19.2", expected_best)

# %%
COUNTS, PROMPTS = choose(smoke=((1, 2, 4), 4), cpu=((1, 2, 4, 8, 16, 32, 64), 16), gpu=((1, 2, 4, 8), 16))
pool_prompts = [text for text in shapes.evaluation_pairs("test", PROMPTS // 4)[0] for _ in range(max(COUNTS))]
pool = draw(base, pool_prompts, range(40_000_000, 40_000_000 + len(pool_prompts)))
with torch.no_grad():
    said, worth = (reward(pool, pool_prompts).cpu().reshape(PROMPTS, -1) for reward in (proxy, gold))
chosen = {
    "n": list(COUNTS),
    "kl": best_of_n_kl(torch.tensor(COUNTS, dtype=torch.float64)).tolist(),
    "proxy": [expected_best(said, said, n).mean().item() for n in COUNTS],
    "gold": [expected_best(said, worth, n).mean().item() for n in COUNTS],
    "by gold": [expected_best(worth, worth, n).mean().item() for n in COUNTS],
}

# %%
viz.curves(
    {f"chosen by {who}": (chosen["kl"], chosen[key]) for who, key in (("the proxy", "gold"), ("gold", "by gold"))},
    xlabel="nats from the base",
    ylabel="gold of the chosen picture",
    alt=f"Gold of the best of n against nats. Chosen by the proxy: {chosen['gold'][0]:.2f} for one, at most "
    f"{max(chosen['gold']):.2f}, {chosen['gold'][-1]:.2f} for {COUNTS[-1]}. Chosen by gold itself: "
    f"{chosen['by gold'][-1]:.2f} for {COUNTS[-1]}.",
)

# %% [markdown]
# The gap between the lines is the proxy's mistakes, picked out by the choice: of many pictures, the one that it likes
# best is often one that it is *wrong* about. But look at the axis: best of 64 is only three nats from the base. The
# pictures are still the base's own. A trained policy goes much further.
#
# ## 3. The steep climb
#
# The proxy has a gradient, so DRaFT will do (lab 10). The sampler draws noise at every step but the last; so how far it
# has gone from the base can be computed, not estimated.

# %% [markdown] goal="19.3"
# Each noisy step is a Gaussian; yours and the base's have equal deviation. Along *your* path the KL of whole paths is
# the sum over steps and numbers:
#
# $$\mathrm{KL} = \sum_{t:\,s_t > 0}\; \sum_j \frac{\big(\mu_{t,j} - \mu^{\text{base}}_{t,j}\big)^2}{2 s_t^2}.$$
#
# `means` and `base_means` are `[batch, steps, ...]`, `stds` is `[steps]`. A step with deviation 0 has no density: leave
# it out. Return nats, `[batch]`; both means have a gradient. This is a measure and, with a weight, a brake.


# %% exercise={"id": "19.3", "name": "path_kl", "title": "Nats along a path", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards"]}
def path_kl(
    means: Float[Tensor, "batch steps ..."], base_means: Float[Tensor, "batch steps ..."], stds: Float[Tensor, "steps"]
) -> Float[Tensor, "batch"]:
    """KL of whole paths to the base's, in nats, over the steps that draw noise."""
    ### BEGIN SOLUTION
    noisy = stds > 0
    gaps = (means[:, noisy] - base_means[:, noisy]).flatten(2).square().sum(2)
    return (gaps / (2 * stds[noisy] ** 2)).sum(1)
    ### END SOLUTION


# %% [markdown] hints="19.3"
# <details><summary>Hint 1: leave out first</summary>
#
# Select the steps with a deviation above 0 in both tensors of means, by a mask. Dividing by 0 first and repairing it afterwards leaves NaN in the
# gradient.
#
# </details>
# <details><summary>Hint 2: numbers of a latent</summary>
#
# `flatten(2)` lays each latent out in a row: `[batch, steps, numbers]`. Sum the squares over dimension 2.
#
# </details>
# <details><summary>Hint 3: then the steps</summary>
#
# Divide `[batch, steps]` by twice the variances of those steps, and sum over dimension 1. A sum, not a mean: nats add up.
#
# </details>

# %% check="19.3"
check("19.3", path_kl)


# %%
@torch.no_grad()
def nats(generator, prompts: list[str], seeds: Sequence[int]) -> float:
    """How far a generator's paths are from the base's, by your function."""
    mine = replace(policy, generator=generator)
    noisy, sigmas, total = mine.noisy_steps(), mine.generator.sigmas(mine.steps), []
    for start in range(0, len(prompts), mine.micro_batch):
        rows = slice(start, start + mine.micro_batch)
        told, before = mine.conditioning(prompts[rows]), None
        for step, state, mean, std in mine.walk(prompts[rows], seeds=torch.as_tensor(seeds[rows]), noisy=noisy):
            if step in noisy:
                base_mean, _ = policy.gaussian(before, told, sigmas, step, True)
                total.append(path_kl(mean[:, None], base_mean[:, None], std.reshape(1)).sum().item())
            before = state
    return sum(total) / len(prompts)


# %%
PER_LOOK, PER_QUERY, FEW = choose(smoke=(2, 1, 4), cpu=(32, 32, 24), gpu=(8, 8, 8))


def look(generator, climbed: Reward) -> dict[str, float]:
    """All that is logged: only `query` may be used for decisions, the rest is for you to see what happened."""
    texts, seeds = shapes.evaluation_pairs("test", PER_LOOK)
    pictures = draw(generator, texts, seeds)
    scores = shapes.measure(pictures.cpu().numpy(), texts)
    with torch.no_grad():
        scores |= {"proxy": proxy(pictures, texts).mean().item(), "climbed": climbed(pictures, texts).mean().item()}
    pixels = pictures.reshape(4, -1, *pictures.shape[1:]).flatten(2)  # by kind of prompt
    scores |= {"pixels": torch.stack([torch.pdist(kind).mean() for kind in pixels.cpu()]).mean().item()}
    questions, others = shapes.evaluation_pairs("validation", PER_QUERY)
    scores |= {"query": gold(draw(generator, questions, others), questions).mean().item()}
    scores |= {"gold": scores["dense"], "kl": nats(generator, texts[:: len(texts) // FEW], seeds[:: len(texts) // FEW])}
    keys = ("climbed", "proxy", "gold", "accuracy", "diversity", "pixels", "query", "kl")
    return {key: float(np.nan_to_num(scores[key])) for key in keys}


# %%
ITERATIONS, EVERY = choose(smoke=(2, 1), cpu=(84, 6), gpu=(300, 25))
settings = RewardGradientConfig(prompts_per_iteration=choose(smoke=4, cpu=48, gpu=16), seed=seed())
as_step = lambda mean, base_mean, std: path_kl(mean[:, None], base_mean[:, None], std.reshape(1))  # noqa: E731


def climb(reward: Reward, nat_price: float = 0.0) -> tuple[list[dict[str, float]], list[dict[str, Tensor]]]:
    """DRaFT-2 along a reward: the log of the looks, and the weights at each."""
    student = base.student()
    algorithm = RewardGradient(
        replace(policy, generator=student), reward, shapes.draw_prompts, replace(settings, kl_weight=nat_price),
        choose_window=lambda steps, rng: (steps - 2, steps), kl_of=as_step,
    )  # fmt: skip
    rate = choose(smoke=3e-4, cpu=3e-4, gpu=3e-4)
    loop = Loop(algorithm, LoopConfig(ITERATIONS, rate, warmup_iterations=2, ema_decay=0.5, progress=False))
    copied = lambda: {name: value.clone() for name, value in loop.state()["model"].items()}  # noqa: E731
    log, kept = [look(base, reward) | {"iteration": 0}], [copied()]
    for iteration in range(1, ITERATIONS + 1):
        loop.iterate()
        if iteration % EVERY == 0:
            with loop.averaged_weights():
                log.append(look(student, reward) | {"iteration": iteration})
                kept.append(copied())
    return log, kept


# %%
logs, weights = {}, {}
logs["proxy"], weights["proxy"] = climb(proxy)
alone = logs["proxy"]
top = int(np.argmax([row["gold"] for row in alone]))
print(f"gold {alone[0]['gold']:.3f} -> {alone[top]['gold']:.3f} after {alone[top]['iteration']} iterations -> "
      f"{alone[-1]['gold']:.3f}; the proxy {alone[0]['proxy']:.2f} -> {alone[-1]['proxy']:.2f}")  # fmt: skip


# %%
def panels(logs: dict[str, list[dict]], keys: dict[str, str], alt: str) -> viz.Picture:
    """One panel a score over sqrt(KL), one line a run; the alternative text ends with where gold is."""
    figure = Figure(figsize=(3.2 * len(keys), 3.1), layout="constrained")
    for axis, (key, title) in zip(np.atleast_1d(figure.subplots(1, len(keys))), keys.items(), strict=True):
        for (name, log), style in zip(logs.items(), ("-", "--", "-.", ":"), strict=False):
            distances = [math.sqrt(max(row["kl"], 0)) for row in log]
            axis.plot(distances, [row[key] for row in log], style, marker="o", ms=3, label=name)
        axis.set(title=title, xlabel="square root of the KL, in nats")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=8)
    ends = [
        f"{name}: gold {r[0]['gold']:.2f}, at most {max(x['gold'] for x in r):.2f}, at the end {r[-1]['gold']:.2f}"
        for name, r in logs.items()
    ]
    return viz.picture(figure, alt=f"{alt} {'; '.join(ends)}.")


panels(
    {"proxy alone": alone},
    {"proxy": "what is climbed: the proxy", "gold": "gold, the dense verifier", "accuracy": "strict accuracy"},
    "Proxy, gold and strict accuracy over the square root of the KL.",
)

# %% [markdown]
# On the left, a success. In the middle, what it was worth. Look at the pictures: the same prompts and noise from the
# base, from where gold was highest, and from the end.

# %%
sheet_prompts, sheet_seeds = shapes.evaluation_pairs("test", per_kind=2)


def with_weights(kept: dict[str, Tensor]):
    """A copy of the base with trained weights."""
    student = base.student()
    student.transformer.load_state_dict(kept, strict=False)
    return student


stages = [base, with_weights(weights["proxy"][top]), with_weights(weights["proxy"][-1])]
drawn = torch.cat([draw(stage, sheet_prompts, sheet_seeds) for stage in stages])
told = [verdict.strict for verdict in shapes.verify(drawn.cpu().numpy(), sheet_prompts * 3)]
viz.sample_sheet(
    drawn, sheet_prompts * 3, columns=8, accepted=told,
    alt="Three rows of eight pictures, for the same prompts and noise: base, gold's peak, end. Accepted: "
    f"{sum(told[:8])}, {sum(told[8:16])} and {sum(told[16:])} of 8.",
)  # fmt: skip

# %% [markdown] goal="19.4"
# Gao, Schulman and Hilton measured such curves with language models. With $d = \sqrt{\mathrm{KL}}$, what gold gained
# over the base followed, for reinforcement learning,
#
# $$R(d) = d\,(\alpha - \beta \log d),$$
#
# two numbers for a whole curve: $\alpha$ is how good the proxy is at first, $\beta$ how fast that wears off. It is
# *linear* in $\alpha$ and $\beta$, so least squares finds both at once. `distance` and `gain` are `[points]`; return
# `(alpha, beta)` as two floats. The first point may lie at $d = 0$, where the gain is 0.


# %% exercise={"id": "19.4", "name": "fit_goodhart", "title": "A curve of two numbers", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "scipy"]}
def fit_goodhart(distance: Float[Tensor, "points"], gain: Float[Tensor, "points"]) -> tuple[float, float]:
    """(alpha, beta) of the curve d (alpha - beta log d) nearest to the points by least squares."""
    ### BEGIN SOLUTION
    columns = torch.stack([distance, -torch.xlogy(distance, distance)], dim=1)
    alpha, beta = torch.linalg.lstsq(columns, gain[:, None]).solution[:, 0].tolist()
    return alpha, beta
    ### END SOLUTION


# %% [markdown] hints="19.4"
# <details><summary>Hint 1: two columns</summary>
#
# The gain is alpha times one column plus beta times another. The first column is d. What is the second, sign included?
#
# </details>
# <details><summary>Hint 2: the point at zero</summary>
#
# `torch.xlogy(d, d)` is d log d, and 0 at d = 0.
#
# </details>
# <details><summary>Hint 3: the solver</summary>
#
# `torch.linalg.lstsq(columns, gain[:, None]).solution` is `[2, 1]`. No column of ones: the curve begins at 0.
#
# </details>

# %% check="19.4"
check("19.4", fit_goodhart)

# %%
distance = torch.tensor([math.sqrt(max(row["kl"], 0)) for row in alone], dtype=torch.float64)
gain = torch.tensor([row["gold"] - alone[0]["gold"] for row in alone], dtype=torch.float64)
alpha, beta = fit_goodhart(distance, gain)
along = torch.linspace(0, float(distance.max()), 60, dtype=torch.float64)
fitted = along * alpha - beta * torch.xlogy(along, along)
error = (distance * alpha - beta * torch.xlogy(distance, distance) - gain).square().mean().sqrt().item()
turn = math.exp(min(alpha / beta - 1, 50)) if beta > 0 else math.inf
viz.curves(
    {"measured": (distance.tolist(), gain.tolist()), "fitted": (along.tolist(), fitted.tolist())},
    xlabel="square root of the KL, in nats",
    ylabel="gold gained over the base",
    alt=f"Gold's gain, measured and fitted by d (alpha - beta log d): alpha {alpha:.3f}, beta {beta:.3f}, turning at "
    f"d = {turn:.1f}; the fit is off by {error:.3f} on average.",
)

# %% [markdown]
# The shape is theirs; the numbers are ours, of one proxy and one model. Where the fit is bad, believe the points: Gao
# et al. fitted text, and reward models far larger than this. Two more of their findings to keep in mind: how many nats
# a method spends says little about how hard it pushes (compare the axis of section 2), and a KL penalty did *not* give
# more gold at a given KL. You can see whether it does here.
#
# ## 4. Brakes

# %% [markdown] goal="19.5"
# **Several judges.** Where few answers were given, nothing holds a model in place, and another one, fitted to the same
# answers from another start, says something else. Where they disagree, none of them knows. So climb a *lower bound*:
#
# $$\bar r - c\,\operatorname{sd}(r), \qquad \operatorname{sd}^2 = \frac1K \sum_k (r_k - \bar r)^2,$$
#
# picture by picture, for `scores` of K members (`[members, batch]`) and a `caution` $c \ge 0$. Return `[batch]`. You
# climb it by its gradient, so that must be finite, also where all members agree.


# %% exercise={"id": "19.5", "name": "lower_bound", "title": "A cautious committee", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards"]}
def lower_bound(scores: Float[Tensor, "members batch"], caution: float) -> Float[Tensor, "batch"]:
    """The mean over members less `caution` standard deviations, with a finite gradient."""
    ### BEGIN SOLUTION
    spread = (scores.var(dim=0, correction=0) + 1e-12).sqrt()
    return scores.mean(dim=0) - caution * spread
    ### END SOLUTION


# %% [markdown] hints="19.5"
# <details><summary>Hint 1: which dimension</summary>
#
# Mean and spread over the members, dimension 0. A picture is left for each column.
#
# </details>
# <details><summary>Hint 2: over their number</summary>
#
# `scores.var(dim=0, correction=0)`: these members are all there are.
#
# </details>
# <details><summary>Hint 3: the root</summary>
#
# The slope of a root at 0 is infinite. With 1e-12 under it the gradient there is 0, and no value changes visibly.
#
# </details>

# %% check="19.5"
check("19.5", lower_bound)

# %% [markdown]
# The members share their body, and the answers. Each answer was merely drawn a different number of times for each of
# them, and each head began elsewhere. That is the cheap kind of ensemble; what all members get wrong together it cannot
# see. Climb the bound, and climb the proxy with your KL as a price of nats beside it (it
# counts the noisy step that carries gradient).

# %%
bound = judge(partial(lower_bound, caution=1.0), "lower bound")
logs["ensemble"], weights["ensemble"] = climb(bound)
logs["KL"], weights["KL"] = climb(proxy, nat_price=choose(smoke=0.04, cpu=0.04, gpu=0.04))
panels(
    logs,
    {"proxy": "the proxy", "gold": "gold", "accuracy": "strict accuracy", "diversity": "diversity"},
    "Proxy, gold, strict accuracy and diversity over the square root of the KL, for the proxy alone and two brakes.",
)

# %% [markdown] goal="19.6"
# **Stop in time.** Gold may be asked a few times. Each query is noisy, so a single fall proves nothing. Go through the
# answers `golds` (a list of floats, one a query, in order) and stop as soon as `patience` queries in a row were no
# better than the best before them. Return `(kept, asked)`: the position of the best you have seen, and how many queries
# were asked, the last one included. Of equal answers keep the first.


# %% exercise={"id": "19.6", "name": "early_stop", "title": "When to stop asking", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards"]}
def early_stop(golds: list[float], patience: int) -> tuple[int, int]:
    """Position of the best query before stopping, and how many queries that took."""
    ### BEGIN SOLUTION
    kept = 0
    for number, value in enumerate(golds):
        if value > golds[kept]:
            kept = number
        if number - kept >= patience:
            return kept, number + 1
    return kept, len(golds)
    ### END SOLUTION


# %% [markdown] hints="19.6"
# <details><summary>Hint 1: one number to remember</summary>
#
# The position of the best so far. How many queries were no better since is then a difference of positions.
#
# </details>
# <details><summary>Hint 2: better</summary>
#
# Strictly better: `>`. An equal answer is no reason to go on.
#
# </details>
# <details><summary>Hint 3: never looking ahead</summary>
#
# Use only `golds[: number + 1]` when you decide at `number`. Where it never stops, all were asked.
#
# </details>

# %% check="19.6"
check("19.6", early_stop)

# %%
peak = alone[top]["gold"]
stops = {name: early_stop([row["query"] for row in log], patience=3) for name, log in logs.items()}
brakes = {}
lines = [
    "| | gold at its end | stopped by queries | share of the lone proxy's peak | queries | nats |",
    "|---" * 6 + "|",
]
for name, log in logs.items():
    kept, number = stops[name]
    row, share = log[kept], log[kept]["gold"] / max(peak, 1e-9)
    brakes[name] = {"end": log[-1]["gold"], "stopped": row["gold"], "share": share, "queries": number, "kl": row["kl"]}
    lines.append(f"| {name} | {log[-1]['gold']:.3f} | {row['gold']:.3f} | {share:.3f} | {number} | {row['kl']:.0f} |")
Markdown("\n".join([*lines, f"| *peak of the proxy alone, seen with hindsight* | | *{peak:.3f}* | *1* | | |"]))

# %% [markdown]
# Stopping needs gold itself, if only a few times; nothing else in the table does. And it tells you when to stop, not
# how to get further. A better proxy would: the answers that would help most are about the pictures at the *end* of the
# climb, where nobody was asked yet. You can try that in the capstone.
#
# The recorded runs: three seeds, each with answers of its own.


# %%
def kept_records(name: str) -> list[dict]:
    """The records of a benchmark; none where it has not been run yet."""
    try:
        return recorded.records(name)
    except LabError:
        print(f"There is no record {name} in this copy of the course: this section has nothing to show yet.")
        return []


for run in kept_records("19-open-problems-overoptimisation"):
    if run["method"] != "best-of-n":
        score, stopped = run["metrics"], run["metrics"]["early_stop"]
        print(f"{run['method']:16s} seed {run['seed']}: gold {score['gold']['before']:.3f} -> peak "
              f"{score['gold']['peak']:.3f} -> {score['gold']['after']:.3f}; stopped by {stopped['queries']} queries: "
              f"{stopped['gold']:.3f}")  # fmt: skip

# %% [markdown]
# ## 5. Diversity: which distance?
#
# Does over-optimisation make pictures alike? It depends on what you measure. *Diversity* in this course is how
# differently **accepted** pictures of one prompt place and size their objects. Plain distance of pixels is another
# thing. Compare both along the lone climb:

# %%
relative = {
    "of accepted attributes": [row["diversity"] / max(alone[0]["diversity"], 1e-9) for row in alone],
    "of pixels": [row["pixels"] / max(alone[0]["pixels"], 1e-9) for row in alone],
}
viz.curves(
    {name: ([row["iteration"] for row in alone], values) for name, values in relative.items()},
    xlabel="iterations",
    ylabel="diversity, relative to the base",
    alt="Two measures of diversity along the climb, the base's being 1. At the end: "
    + "; ".join(f"{name} {values[-1]:.2f}" for name, values in relative.items())
    + ".",
)

# %% [markdown]
# A hacked model can look *more* diverse in pixels: textures that please the judge differ from picture to picture. And
# among few accepted pictures, the attributes' diversity is a guess. Neither number alone would tell you what the sheet
# of pictures above tells at a glance.
#
# ## 6. Credit: when was it decided?
#
# A picture gets one reward and took several steps. Which of them decided? GRPO gives all steps the same advantage.
# You can measure who deserves it: stop at a step, and let the same state go on several times with fresh noise.

# %% [markdown] goal="19.7"
# `rewards` is `[states, branches]`: from each of several states, several continuations. The variance of the reward
# splits into a part *between* states, which was decided before the step, and a part *within*, decided after. Return
#
# $$\text{share} = \frac{\sigma_b^2}{\sigma_b^2 + \sigma_w^2}, \qquad
# \sigma_w^2 = \operatorname{mean}_s \operatorname{var}_b(r_{sb}), \qquad
# \sigma_b^2 = \operatorname{var}_s(\bar r_s) - \frac{\sigma_w^2}{\text{branches}},$$
#
# a float. Means of a few branches differ by chance too: that is what is taken away. Variances divide by one less than
# the number, as torch does. Where nothing varies, return 0.


# %% exercise={"id": "19.7", "name": "explained_share", "title": "Who decided", "points": 3, "minutes": 12, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards"]}
def explained_share(rewards: Float[Tensor, "states branches"]) -> float:
    """The share of the reward's variance that the state had decided."""
    ### BEGIN SOLUTION
    within = rewards.var(dim=1).mean()
    between = rewards.mean(dim=1).var() - within / rewards.shape[1]
    total = between + within
    return (between / total).item() if total > 0 else 0.0
    ### END SOLUTION


# %% [markdown] hints="19.7"
# <details><summary>Hint 1: rows are states</summary>
#
# `rewards.var(dim=1)` is the variance among the branches of each state; its mean is the part within.
#
# </details>
# <details><summary>Hint 2: without bias</summary>
#
# `rewards.mean(dim=1).var()` contains the part within, divided by the number of branches. Take that away.
#
# </details>
# <details><summary>Hint 3: nothing varies</summary>
#
# Then both parts are 0, and so is the answer. The share may be a little below 0 by chance; leave it so.
#
# </details>

# %% check="19.7"
check("19.7", explained_share)

# %%
STATES, BRANCHES = choose(smoke=(2, 2), cpu=(24, 6), gpu=(8, 4))
one_prompt = [choose(smoke="two red circles", cpu="two red circles", gpu="two red circles")] * STATES


@torch.no_grad()
def branch(step: int) -> Tensor:
    """Gold of pictures that share their state before `step`, in rows, and draw fresh noise from there on."""
    noisy, sigmas, told = policy.noisy_steps(), base.sigmas(policy.steps), policy.conditioning(one_prompt)
    rows = torch.arange(STATES) + 50_000_000
    trunk = [state for _, state, _, _ in policy.walk(one_prompt, seeds=rows, noisy=noisy)][step]
    values = []
    for number in range(BRANCHES):
        state, fresh = trunk, policy.draws(rows + 1000 * (number + 1))
        for later in range(step, policy.steps):
            mean, std = policy.gaussian(state, told, sigmas, later, later in noisy)
            state = mean + std * next(fresh) if later in noisy else mean
        values.append(gold(small(base.decode(state)), one_prompt))
    return torch.stack(values, 1).cpu()


# %%
tried = sorted({0, *range(policy.steps)} if policy.steps <= 8 else {0, 10, 20, 30, 40, 49})
decided = [explained_share(branch(step)) for step in tried]
viz.curves(
    {"decided by the state": (tried, decided)},
    xlabel="steps taken",
    ylabel="share of gold's variance",
    alt="Share of the variance of gold that is decided after so many steps: "
    + ", ".join(f"{step} steps {share:.2f}" for step, share in zip(tried, decided, strict=True))
    + ".",
)

# %% [markdown]
# After no step at all the state is plain noise: what it decides, the sampler made of nothing else. Where the curve
# rises steeply, steps matter; where it is flat, their noise is only noise to the reward. DRaFT-2 trains the last two.
# TempFlow-GRPO and DenseGRPO give steps different credit, and BranchGRPO branches as you just did.
#
# ## 7. Cost: who pays when?
#
# Count passes through the network. A picture of the base costs one a step. Best of N pays N times, for every picture,
# for ever. Training pays once. A pass with gradient costs about three without (lab 10's speed table says more).

# %%
steps, batch = policy.steps, settings.prompts_per_iteration
for_gradient = 2  # the last two steps; gradient pass = 3 passes
training = stops["proxy"][0] * EVERY * batch * (steps - for_gradient + 3 * for_gradient)
asking = stops["proxy"][1] * 4 * PER_QUERY * steps
break_even = {n: (training + asking) / ((n - 1) * steps) for n in (2, 4, 12)}
print(f"training to the stop: {training:,} passes, and {asking:,} for the pictures of the gold queries")
for n, pictures in break_even.items():
    print(f"as much as best of {n:2d} spends on {pictures:,.0f} pictures")
best = best_of(base, (1, 4, 12), per_kind=choose(smoke=1, cpu=16, gpu=8)) if not real_model() else {}
print("strict accuracy of the base by the plain ODE, best of N chosen by the verifier:", best)

# %% [markdown]
# Few pictures: search. Many: train. What the count leaves out is the dearest part of real runs, the judge: a reward
# model of billions of parameters, or a person.
#
# ## 8. The capstone
#
# Now all of it at once. The rules:
#
# - **Gold** is `work/capstone.json`'s business. You do not call `shapes_dense`, `shapes_strict` or `shapes.verify`.
# - You may ask **20 queries**. A query tells gold, with its standard error, of weights that you hand in.
# - You have comparisons (as in section 1), anything that you fit to them, and everything you wrote in nineteen labs.
# - A **submission** is scored on other prompts and seeds, and enters your leaderboard. The first is free, each later one
#   costs a query.
#
# ```
# pixelpolicy capstone query my.safetensors
# pixelpolicy capstone submit my.safetensors --name "what I did"
# pixelpolicy capstone leaderboard
# ```
#
# All of it runs on your machine, so nothing is secret: the verifier is a function you know, the ledger a file you can
# delete. **The budget is a rule, not a lock.** With real raters it is a lock, and it is paid for.
#
# Here is the whole way once, with the runs of this lab, on a small ledger of the lab's own. It scores the small base
# also under `gpu`.


# %%
def hand_in(kept: dict[str, Tensor], name: str):
    """Weights as a file that the capstone takes: the difference to the base."""
    origin = load("shapes")
    tuned = origin.transformer.state_dict() | {key: value.float() for key, value in kept.items()}
    path = course_root() / "work" / f"19-{name}-{seed()}.safetensors"
    save_weights(difference(tuned, origin.transformer.state_dict()), path, base=origin)
    return path


QUERY, SUBMIT = choose(smoke=(1, 1), cpu=(16, 64), gpu=(16, 64))
own = course_root() / "work" / f"19-capstone-{seed()}.json"
own.unlink(missing_ok=True)  # the lab's demonstration begins anew each time; yours does not
ledger = Ledger(own, budget=10, per_kind={"query": QUERY, "submission": SUBMIT})

# %%
plan = {} if real_model() else {"to the end": ("proxy", -1), "stopped": ("proxy", stops["proxy"][0])}
plan |= {} if real_model() else {f"{run}, stopped": (run, stops[run][0]) for run in ("ensemble", "KL")}
files = {name: hand_in(weights[run][at], name.replace(", ", "-").replace(" ", "-")) for name, (run, at) in plan.items()}
asked_before = {name: ledger.query(path) for name, path in files.items()}
for name, entry in asked_before.items():
    print(f"query {entry.asked}: {name}: gold {entry.scores.gold:.3f} ± {entry.scores.gold_se:.3f}")
untouched = ledger.query(load("shapes"))
print(f"the base: gold {untouched.scores.gold:.3f} ± {untouched.scores.gold_se:.3f}; {ledger.left} queries are left")

# %%
ledger.submit(load("shapes"), "the base")
for name in files:
    ledger.submit(files[name], name)
rows = [
    f"| {entry.name} | {entry.scores.gold:.3f} ± {entry.scores.gold_se:.3f} | {entry.scores.accuracy:.3f} | "
    f"{entry.scores.diversity:.3f} |"
    for entry in ledger.leaderboard()
]
rows += [f"| *base, best of {n} chosen by the verifier* | | *{accuracy:.3f}* | |" for n, accuracy in best.items()]
Markdown("\n".join(["| | gold | strict accuracy | diversity |", "|---|---|---|---|", *rows]))

# %% [markdown]
# These scores are by the plain ODE in ten steps: another sampler than the one that was trained. Compare with the table
# of section 4: what the noisy sampler gained need not all show here. Gold is what the *rules* say it is, so mind the
# sampler when you train. And look at the error beside each query before you believe a difference. Now it is
# your turn. Ideas, in order of how much they usually give:
#
# 1. Ask the simulated rater about pictures of your *trained* model, fit again, climb again.
# 2. A method that does not need a gradient is harder to fool than DRaFT: GRPO or NFT on the lower bound.
# 3. More caution, a price of nats, more members, other bodies.
# 4. Spend queries where the proxy and the members part, not at regular times.
#
# ## What to take away
#
# - Gold rises, turns and falls while the proxy rises: measured, with the distance on the axis in nats.
# - Brakes choose a place on the way. A few queries of gold choose it best; committees need none.
# - Diversity, credit and cost are measurements before they are slogans.
# - A reward is a claim about what you want. Somebody has to check it who does not climb it.
#
# The cell below writes down what happened here. It is the last of the course.


# %%
def ends(log: list[dict[str, float]]) -> dict[str, float]:
    return {key: log[-1][key] for key in ("climbed", "proxy", "gold", "accuracy", "diversity", "kl")}


record = write_record(
    "19-open-problems",
    ({"rehearsal": int(rehearsing())} if real_model() else {})
    | {"agreement": {"seen": agreed["seen"], "held_out": agreed["held out"]}, "brakes": brakes}
    | {"gold": {"before": alone[0]["gold"], "after": alone[-1]["gold"]}, "peak": peak}
    | {"fall": 1 - alone[-1]["gold"] / max(peak, 1e-9), "runs": {name: ends(log) for name, log in logs.items()}}
    | {"gao": {"alpha": alpha, "beta": beta, "error": error}, "decided": decided}
    | {"best_of_n": {"kl": chosen["kl"], "gold": chosen["gold"], "by_gold": chosen["by gold"]}}
    | {"strict_best_of_n": {str(n): accuracy for n, accuracy in best.items()}},
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/19.json")
