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
# # Lab 05: do what I like, and stay yourself
#
# Up to here the world paid: a point for every moment upright. Nobody pays a language model by the word or a painter by
# the stroke. There is a model that can already do much, there is somebody who likes some results better than others,
# and there is a wish: *more of what I like, and otherwise stay as you are*. That is **alignment**.
#
# The wish has an exact answer, one line long. You will write it down first. Then you reach it in four ways, each of
# them a short function of yours: by **imitating** what was good, by **asking** which of two is better and training on
# a model of the answers, by the shortcut called **DPO**, and by **GRPO**. The worlds are so small that you can tell to
# a percent how close each comes. At the end you ask for too much, and see what happens.
#
# Seven exercises, about 75 minutes. `dpo_loss` and `group_advantages` are what later labs import to train image
# models; `clipped_surrogate` is the very function of lab 04.

# %%
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from IPython.display import Markdown
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor, nn

# %%
from pixelpolicy import viz
from pixelpolicy.control.alignment import AlignmentConfig, by_preferences, by_reward, by_weights, compare, fit_reward
from pixelpolicy.control.exact import Mixture, masses, total_variation, world
from pixelpolicy.course import check
from pixelpolicy.course.results import start_timer, write_record
from pixelpolicy.profiles import choose, seed
from pixelpolicy.rl import clipped_surrogate, tilted_mixture
from pixelpolicy.viz.figures import COLOURS, OTHERS
from pixelpolicy.widgets import TiltExplorer

# %% [markdown]
# ## 1. Three worlds, and what you would like of them
#
# - A **bandit** chooses one of six. It is the smallest policy there is.
# - A **chain** writes four tokens, each given the one before: a language model with three words.
# - A **mixture** draws a number on the line: a generator of pictures with one pixel.
#
# Each has a *reference* $p$, the model as it is, and a reward $r$. The grey is what each does now; the line is what
# each outcome is worth. (The 81 sequences of the chain stand in the order of what is to be reached.)

# %%
lab_clock = start_timer()
torch.set_num_threads(1)
WORLDS = {name: world(name) for name in ("bandit", "chain", "mixture")}
best = {name: here.optimum() for name, here in WORLDS.items()}


# %%
def places(name: str) -> tuple[Tensor, float]:
    """Where to draw the outcomes of a world, and what turns their masses into heights."""
    if name == "chain":  # 81 sequences, those first that the closed form makes likeliest
        return best[name].argsort(descending=True).argsort(), 1.0
    return WORLDS[name].reference.outcomes(), WORLDS[name].reference.cell


def draw(axis, name: str, chances: Tensor, colour: str, label: str, filled: bool = False) -> None:
    """The masses of a policy: bars of the bandit and the chain, a curve of the mixture."""
    x, cell = places(name)
    if name == "mixture":
        (axis.fill_between if filled else axis.plot)(x, chances / cell, color=colour, label=label, linewidth=1.5)
    elif filled:
        axis.bar(x, chances, width=0.9, color=colour, label=label)
    else:
        size = 5 if name == "bandit" else 2
        axis.plot(x, chances, "o", color=colour, label=label, markersize=size, fillstyle="none")


# %%
LABELS = {"bandit": "choice", "chain": "sequence, the aim's order", "mixture": "number"}


def panels(layers: Callable[[str], list[tuple]], alt: str) -> viz.Picture:
    """One panel a world; `layers` lists what to draw in it: (masses, colour, label, filled)."""
    figure = Figure(figsize=(9.5, 2.9), layout="constrained")
    for axis, name in zip(figure.subplots(1, 3), WORLDS, strict=True):
        for chances, colour, label, filled in layers(name):
            draw(axis, name, chances, colour, label, filled)
        axis.set(title=name, xlabel=LABELS[name])
        axis.set_xlim(*{"bandit": (-0.6, 5.6), "chain": (-1, 81), "mixture": (-5, 5)}[name])
        axis.legend(frameon=False, fontsize=7)
    return viz.picture(figure, alt=alt)


# %%
figure = Figure(figsize=(9.5, 2.9), layout="constrained")
for axis, (name, here) in zip(figure.subplots(1, 3), WORLDS.items(), strict=True):
    draw(axis, name, masses(here.reference), COLOURS["base"], "reference", filled=True)
    order = places(name)[0].argsort()
    worth = axis.twinx()
    worth.plot(
        places(name)[0][order],
        here.reward(here.reference.outcomes())[order],
        color=OTHERS[0],
        marker="." if name == "bandit" else None,
    )
    worth.set_ylabel("reward", color=OTHERS[0])
    axis.set(title=name, xlabel=LABELS[name], ylabel="probability" if name != "mixture" else "density")
    axis.set_xlim(*{"bandit": (-0.6, 5.6), "chain": (-1, 81), "mixture": (-5, 5)}[name])
viz.picture(figure, alt="Three worlds: what the reference does in grey, what each outcome is worth as a line. In each, "
            "what is worth most is done seldom.")  # fmt: skip

# %% [markdown] goal="5.1"
# Always the best choice? Then the bandit would forget five of its six, and the mixture would run off to infinity. So
# say what forgetting costs: $\beta$ for each nat of KL divergence from the reference. We look for the policy $\pi$
# with the highest
#
# $$\mathbb E_\pi[r] - \beta\,\mathrm{KL}(\pi \,\|\, p),
# \qquad \mathrm{KL}(\pi\,\|\,p) = \mathbb E_\pi\Big[\log\frac{\pi}{p}\Big].$$
#
# The answer is the **tilted** reference, and $Z$ is what makes it add up to 1:
#
# $$\pi^*(x) = \frac{p(x)\, e^{r(x)/\beta}}{Z}.$$
#
# Write it for a table of probabilities `p` and a table of rewards. Be safe with large rewards.


# %% exercise={"id": "5.1", "name": "tilt", "title": "The best that a leash allows", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def tilt(p: Float[Tensor, "outcomes"], rewards: Float[Tensor, "outcomes"], beta: float) -> Float[Tensor, "outcomes"]:
    """p e^(r / beta) / Z: the best policy where a nat of distance from p costs beta."""
    ### BEGIN SOLUTION
    return torch.softmax(p.log() + rewards / beta, dim=-1)
    ### END SOLUTION


# %% [markdown] hints="5.1"
# <details><summary>Hint 1: what Z is</summary>
#
# The sum of p e^(r / beta) over all outcomes. Nothing else makes the probabilities add up to 1.
#
# </details>
# <details><summary>Hint 2: e to the thousand</summary>
#
# It is too large for any float. But Z takes a common factor away, so the largest exponent may be made 0 first.
#
# </details>
# <details><summary>Hint 3: who does that already</summary>
#
# A softmax exponentiates and divides by the sum, safely. What must its input be, so that p is a factor of the result?
#
# </details>

# %% check="5.1"
check("5.1", tilt)

# %% [markdown]
# Your formula at three prices: at a high one nothing moves, at a low one only the best is left.

# %%
PRICES = {"beta 3": 3.0, "beta 0.6": 0.6, "beta 0.15": 0.15}


def tilts(name: str) -> list[tuple]:
    p = masses(WORLDS[name].reference)
    r = WORLDS[name].reward(WORLDS[name].reference.outcomes())
    rows = [(tilt(p, r, beta), OTHERS[i], label, False) for i, (label, beta) in enumerate(PRICES.items())]
    return [(p, COLOURS["base"], "reference", True), *rows]


panels(tilts, alt="The tilted policies at beta 3, close to the reference; at 0.6, moved to better outcomes; at 0.15, "
       "nearly all on the best.")  # fmt: skip

# %% [markdown]
# Drag the price yourself, or use the arrow keys: this is the mixture.

# %%
TiltExplorer(
    alt="A mixture of three normal distributions on the line and its tilted optimum, with beta under a slider; beside "
    "it the reward earned against the KL paid.",
    caption="The reference and its tilted optimum. The lower beta, the further it goes for its reward.",
)

# %% [markdown]
# On the line the tilted policy even has a formula without tables. Tilting a Gaussian by $e^{ax}$ moves its mean by
# $a$ times its variance and leaves its width: the optimum is *again a mixture*. Where no such luck helps, a policy
# comes only as close as it can express itself. Here it can, in all three worlds.

# %%
here = WORLDS["mixture"]
p = here.reference
stds = p.log_stds.exp()
weights, means = tilted_mixture(p.logits.softmax(0), p.means, stds, 0.4, here.beta)
print("weights", p.logits.softmax(0).numpy().round(2), "->", weights.numpy().round(2))
print("means  ", p.means.numpy().round(2), "->", means.numpy().round(2))
gap = total_variation(masses(Mixture(weights, means, stds)), best["mixture"])
print(f"total variation between this formula and the table: {gap:.1e}")

# %% [markdown]
# **Total variation** is our yardstick: the share of all draws that would have to be moved to make one distribution of
# the other. 0 is perfect, 1 is nothing in common. How far is the reference from the best, before any training?

# %%
start = {name: total_variation(masses(here.reference), best[name]) for name, here in WORLDS.items()}
{name: round(value, 3) for name, value in start.items()}

# %% [markdown]
# For tables you can look $Z$ up. A text-to-image model has no table. It can do three things: draw samples, say how
# likely a sample is, and take a gradient step. From here on, so can you.

# %% [markdown]
# ## 2. Imitate what was good

# %% [markdown] goal="5.2"
# The oldest way needs nothing but a pile of old samples: **reward-weighted regression** (RWR). Draw from the
# reference, judge, and imitate every sample with a weight that grows with its reward:
#
# $$L = -\sum_i w_i \log \pi(x_i), \qquad w_i = \frac{e^{r_i/\beta}}{\sum_j e^{r_j/\beta}}.$$
#
# A sample from $p$ with weight $e^{r/\beta}$ *is* a sample from the tilted policy; imitation does the rest. The
# weights say what to imitate, so no gradient goes through them.


# %% exercise={"id": "5.2", "name": "weighted_loss", "title": "Weighted imitation", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def weighted_loss(log_probs: Float[Tensor, "batch"], rewards: Float[Tensor, "batch"], beta: float) -> Float[Tensor, ""]:
    """Reward-weighted regression: each sample is imitated by its share of e^(r / beta)."""
    ### BEGIN SOLUTION
    weights = torch.softmax(rewards.detach() / beta, dim=0)
    return -(weights * log_probs).sum()
    ### END SOLUTION


# %% [markdown] hints="5.2"
# <details><summary>Hint 1: shares</summary>
#
# The weights add up to 1. You met a function that exponentiates and divides by the sum a moment ago.
#
# </details>
# <details><summary>Hint 2: what learns</summary>
#
# Only the log-probabilities carry a gradient. Detach what the weights are made of.
#
# </details>
# <details><summary>Hint 3: the last line</summary>
#
# Multiply, add up, put a minus before it. An average would divide by the batch a second time.
#
# </details>

# %% check="5.2"
check("5.2", weighted_loss)

# %% [markdown]
# Your loss trains a copy of each reference on samples that were drawn once. It never draws a sample of its own: that
# is what *offline* means.

# %%
SAMPLES = choose(smoke=1_000, cpu=20_000, gpu=20_000)
STEPS = choose(smoke=20, cpu=200, gpu=200)
stream = torch.Generator().manual_seed(seed())
reached: dict[str, dict[str, nn.Module]] = {"RWR": {}}
for name, here in WORLDS.items():
    data = here.reference.sample(SAMPLES, stream)
    reached["RWR"][name] = by_weights(here, data, loss=weighted_loss, steps=STEPS)


# %%
COLOUR = {"RWR": OTHERS[1], "RLHF": OTHERS[2], "DPO": COLOURS["dpo"], "GRPO": COLOURS["grpo"]}
apart: dict[str, dict[str, float]] = {}


def show(*methods: str) -> viz.Picture:
    """What each method has reached, over the closed form; the distances are kept for the table at the end."""
    for method in methods:
        apart[method] = {name: total_variation(masses(policy), best[name]) for name, policy in reached[method].items()}
        print(f"{method:5} total variation:", {name: round(value, 3) for name, value in apart[method].items()})

    def layers(name: str) -> list[tuple]:
        rows = [(masses(reached[method][name]), COLOUR[method], method, False) for method in methods]
        return [(best[name], "#cccccc", "closed form", True), *rows]

    alt = f"The policies that {' and '.join(methods)} reached, drawn over the closed form, in three worlds."
    return panels(layers, alt)


show("RWR")

# %% [markdown]
# Good, and cheap. Its price shows when the leash is long: at a small $\beta$ a handful of samples get all the weight,
# because the reference hardly ever draws what you want. How many samples count? The **effective sample size** is
# $1 / \sum_i w_i^2$.

# %%
rewards = WORLDS["mixture"].reward(data)
for beta in (3.0, 0.7, 0.2, 0.05):
    shares = torch.softmax(rewards / beta, dim=0)
    print(f"beta {beta:4}: {1 / shares.square().sum():8.0f} of {SAMPLES} samples count")

# %% [markdown]
# ## 3. Ask which is better

# %% [markdown] goal="5.3"
# *How good is this picture, from 0 to 10?* Nobody answers that twice alike. *Which of these two?* is a question that
# people can answer. Bradley and Terry wrote down in 1952 what the answers say about a hidden reward:
#
# $$P(a \text{ beats } b) = \operatorname{sigmoid}(r_a - r_b), \qquad
# \operatorname{sigmoid}(x) = \frac{1}{1 + e^{-x}}.$$
#
# A **reward model** is trained to be as little surprised as possible by who won:
#
# $$L = \operatorname{mean}\big(-\log \operatorname{sigmoid}(r_{\text{winner}} - r_{\text{loser}})\big).$$
#
# One value a pair goes in, one number comes out. Far-off pairs must not give infinities.


# %% exercise={"id": "5.3", "name": "bradley_terry_loss", "title": "Who wins?", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def bradley_terry_loss(
    reward_winner: Float[Tensor, "pairs"], reward_loser: Float[Tensor, "pairs"]
) -> Float[Tensor, ""]:
    """How surprised the rewards are by who won, on average over the pairs."""
    ### BEGIN SOLUTION
    return -nn.functional.logsigmoid(reward_winner - reward_loser).mean()
    ### END SOLUTION


# %% [markdown] hints="5.3"
# <details><summary>Hint 1: one pair</summary>
#
# Take the difference, winner less loser. Its sigmoid is the chance that the model gave to what happened.
#
# </details>
# <details><summary>Hint 2: in which order</summary>
#
# Logarithm and sigmoid for each pair by itself, the mean at the very end.
#
# </details>
# <details><summary>Hint 3: far out</summary>
#
# The sigmoid of -900 is 0, and its logarithm is lost. PyTorch has a function that does both steps at once.
#
# </details>

# %% check="5.3"
check("5.3", bradley_terry_loss)

# %% [markdown]
# Somebody now answers for us, as Bradley and Terry have it: by the true reward, with honest doubt. Your loss fits a
# reward model to the answers. It never sees a reward.

# %%
PAIRS = choose(smoke=1_000, cpu=50_000, gpu=50_000)
pairs = {name: compare(here, PAIRS, stream) for name, here in WORLDS.items()}
learned = {name: fit_reward(here, *pairs[name], loss=bradley_terry_loss, steps=STEPS) for name, here in WORLDS.items()}
winners, losers = pairs["chain"]
for won, lost in zip(winners[:4].tolist(), losers[:4].tolist(), strict=True):
    print("chain:", won, "was liked better than", lost)

# %%
figure = Figure(figsize=(9.5, 2.9), layout="constrained")
for axis, (name, here) in zip(figure.subplots(1, 3), WORLDS.items(), strict=True):
    outcomes, p = here.reference.outcomes(), masses(here.reference)
    seen = p > (1e-6 if name == "mixture" else 0)
    true, model = here.reward(outcomes), learned[name](outcomes)
    model = model - (p * (model - true)).sum()  # comparisons say nothing of a constant: give it the true mean
    axis.scatter(true[seen], model[seen], s=8 + 200 * p[seen], color=COLOUR["RLHF"], alpha=0.6)
    axis.plot(true[seen].aminmax(), true[seen].aminmax(), "--", color="#777777", linewidth=1)
    axis.set(title=name, xlabel="true reward", ylabel="learned reward")
viz.picture(figure, alt="Learned against true reward in three worlds: close to the diagonal, less so where the "
            "reference seldom goes.")  # fmt: skip

# %% [markdown]
# Nearly a diagonal, up to a constant that nobody can know from comparisons, and that changes no policy. The model is
# least sure where the reference seldom goes. Keep that in mind for section 6.

# %% [markdown]
# ## 4. RLHF: train on the model of the reward

# %% [markdown] goal="5.4"
# *Reinforcement learning from human feedback* now takes the tools of lab 04: sample, judge, and follow the clipped
# objective. But the objective climbs a reward, and we want the reward *less the price of distance*. So put the price
# into the reward of each sample $x$:
#
# $$\tilde r(x) = r(x) - \beta \log\frac{\pi(x)}{p(x)}.$$
#
# The average of the second term over samples of $\pi$ is $\beta$ times the KL. At the closed form something beautiful
# happens: $\tilde r$ is the same for *every* sample, $\beta \log Z$. Nothing is better than anything else, and
# training comes to rest without noise. A reward is a number: no gradient may pass through it.


# %% exercise={"id": "5.4", "name": "leashed_rewards", "title": "A reward with a leash", "points": 2, "minutes": 8, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def leashed_rewards(
    rewards: Float[Tensor, "batch"],
    log_probs: Float[Tensor, "batch"],
    ref_log_probs: Float[Tensor, "batch"],
    beta: float,
) -> Float[Tensor, "batch"]:
    """The reward of each sample, less what its distance from the reference costs; no gradient passes."""
    ### BEGIN SOLUTION
    return (rewards - beta * (log_probs - ref_log_probs)).detach()
    ### END SOLUTION


# %% [markdown] hints="5.4"
# <details><summary>Hint 1: a quotient of probabilities</summary>
#
# You have both logarithms. The logarithm of a quotient is their difference.
#
# </details>
# <details><summary>Hint 2: signs</summary>
#
# What the policy does more often than the reference costs. What it does less often earns. Keep the sign as it is.
#
# </details>
# <details><summary>Hint 3: the gradient</summary>
#
# `log_probs` come from the policy and carry a gradient. A reward must not: `.detach()` the result.
#
# </details>

# %% check="5.4"
check("5.4", leashed_rewards)

# %% [markdown]
# RLHF, put together of your pieces: your reward model, your leash, and `clipped_surrogate` from lab 04. As a
# baseline, the mean of the batch is taken away. The plots show the way down to the closed form.

# %%
ROUNDS = choose(smoke=5, cpu=150, gpu=150)
rlhf_plan = AlignmentConfig(iterations=ROUNDS, group_size=256)  # one group: the batch


def watch(trail: list, name: str) -> Callable[[dict], None]:
    """Note how far from the closed form the policy is, each time it is asked."""
    return lambda row: trail.append(total_variation(masses(row["policy"]), best[name]))


trails, reached["RLHF"] = {name: [] for name in WORLDS}, {}
for name, here in WORLDS.items():
    given = {"loss": clipped_surrogate, "leash": leashed_rewards, "report": watch(trails[name], name)}
    reached["RLHF"][name] = by_reward(here, learned[name], rlhf_plan, seed=seed(), **given)

# %%
viz.curves(
    {name: (range(0, 256 * len(trail), 256), trail) for name, trail in trails.items()},
    xlabel="samples",
    ylabel="total variation to the closed form",
    alt="RLHF in three worlds: the distance from the closed form falls to a few hundredths.",
)

# %%
show("RLHF")

# %% [markdown]
# ## 5. DPO: leave out the reward model

# %% [markdown] goal="5.5"
# Look at the closed form again, and solve it for the reward:
#
# $$r(x) = \beta \log\frac{\pi^*(x)}{p(x)} + \beta \log Z.$$
#
# So *every policy implies a reward*: the one for which it would be the best. Rafailov and colleagues (2023) put this
# implied reward straight into Bradley and Terry's loss. $Z$ is the same for both of a pair and drops out:
#
# $$L = \operatorname{mean}\Big(-\log\operatorname{sigmoid}\Big(\beta \log\frac{\pi(x_w)}{p(x_w)} - \beta
# \log\frac{\pi(x_l)}{p(x_l)}\Big)\Big),$$
#
# with $x_w$ the winner and $x_l$ the loser. No reward model, no sampling: a classifier's loss on pairs. The
# arguments are log-probabilities of whole samples; the reference is frozen.


# %% exercise={"id": "5.5", "name": "dpo_loss", "title": "Direct preference optimisation", "points": 3, "minutes": 15, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def dpo_loss(
    log_probs_winner: Float[Tensor, "pairs"],
    log_probs_loser: Float[Tensor, "pairs"],
    ref_winner: Float[Tensor, "pairs"],
    ref_loser: Float[Tensor, "pairs"],
    beta: float,
) -> Float[Tensor, ""]:
    """Bradley and Terry's loss on the reward that the policy implies."""
    ### BEGIN SOLUTION
    implied_winner = beta * (log_probs_winner - ref_winner)
    implied_loser = beta * (log_probs_loser - ref_loser)
    return -nn.functional.logsigmoid(implied_winner - implied_loser).mean()
    ### END SOLUTION


# %% [markdown] hints="5.5"
# <details><summary>Hint 1: two implied rewards</summary>
#
# Beta times the log-ratio of policy to reference: once for the winner, once for the loser.
#
# </details>
# <details><summary>Hint 2: what to do with them</summary>
#
# You have written it already, in exercise 5.3.
#
# </details>
# <details><summary>Hint 3: a number to test by</summary>
#
# Before training, policy and reference are the same. Every implied reward is 0, every sigmoid one half, the loss
# log 2 = 0.693.
#
# </details>

# %% check="5.5"
check("5.5", dpo_loss)

# %% [markdown]
# The same comparisons as before, straight into the policy. Later labs import this very loss (`rl.dpo_loss`) and give
# it the log-probabilities of pictures.

# %%
reached["DPO"] = {name: by_preferences(here, *pairs[name], loss=dpo_loss, steps=STEPS) for name, here in WORLDS.items()}
show("DPO")

# %% [markdown]
# Look at the bandit's distance, and at that of RLHF above: the same to the last digits. For a table of six, the
# policy's implied reward and a reward model are the same six numbers, fitted by the same loss to the same pairs.
# *Your language model is secretly a reward model*, says the paper's title. In the other worlds they differ a little:
# there the reward model knows more of the world (that a pair of neighbours is worth the same at every step) than the
# policy does.

# %%
between = {name: total_variation(masses(reached["RLHF"][name]), masses(reached["DPO"][name])) for name in WORLDS}
print("from RLHF to DPO:", {name: round(value, 4) for name, value in between.items()})

# %% [markdown]
# ## 6. GRPO: no critic, no judge but the reward

# %% [markdown] goal="5.6"
# Sometimes the reward can be *computed*: the proof is right, the picture has three circles. Then ask it directly. GRPO
# draws a **group** of samples for each prompt and compares each with its siblings:
#
# $$A_i = r_i - \operatorname{mean}(r_{\text{group}}) \quad (\texttt{"none"}), \qquad
# A_i = \frac{r_i - \operatorname{mean}(r_{\text{group}})}{\operatorname{std}(r_{\text{group}}) + 10^{-4}}
# \quad (\texttt{"group"}).$$
#
# Write both; `scale` says which. The deviation divides by $n$. `groups` numbers the group of each sample. Lab 12 trains
# an image generator with this function.


# %% exercise={"id": "5.6", "name": "group_advantages", "title": "The group as its own measure", "points": 2, "minutes": 12, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def group_advantages(
    rewards: Float[Tensor, "batch"], groups: Int[Tensor, "batch"], *, scale: str = "group"
) -> Float[Tensor, "batch"]:
    """How much better each sample is than its group; with scale="group" in standard deviations of the group."""
    ### BEGIN SOLUTION
    advantages = torch.zeros_like(rewards)
    for group in groups.unique():
        mine = rewards[groups == group]
        spread = mine.std(correction=0) + 1e-4 if scale == "group" else 1.0
        advantages[groups == group] = (mine - mine.mean()) / spread
    return advantages
    ### END SOLUTION


# %% [markdown] hints="5.6"
# <details><summary>Hint 1: group by group</summary>
#
# Go through the different values in `groups`. A mask such as `groups == 7` picks the members of one.
#
# </details>
# <details><summary>Hint 2: which deviation</summary>
#
# `Tensor.std` divides by n - 1 unless told otherwise; look for its `correction` argument.
#
# </details>
# <details><summary>Hint 3: two scales, one loop</summary>
#
# Only the divisor differs: the deviation plus 1e-4, or 1. Fill a new tensor; do not write into `rewards`.
#
# </details>

# %% check="5.6"
check("5.6", group_advantages)

# %% [markdown]
# First with the leash in the reward, as above, and `scale="none"`. The reward is the world's own.

# %%
grpo_plan = AlignmentConfig(iterations=ROUNDS, group_size=16)
plain = partial(group_advantages, scale="none")
trails, reached["GRPO"] = {name: [] for name in WORLDS}, {}
for name, here in WORLDS.items():
    given = {"advantages": plain, "leash": leashed_rewards, "report": watch(trails[name], name)}
    reached["GRPO"][name] = by_reward(here, here.reward, grpo_plan, seed=seed(), loss=clipped_surrogate, **given)

# %%
viz.curves(
    {name: (range(0, 256 * len(trail), 256), trail) for name, trail in trails.items()},
    xlabel="samples",
    ylabel="total variation to the closed form",
    alt="GRPO in three worlds: the distance from the closed form falls to nearly nothing.",
)

# %%
show("GRPO")

# %% [markdown]
# It gets there, and stays: at the closed form every leashed reward is $\beta\log Z$, every advantage is 0.
#
# **Now as it is published.** GRPO keeps the KL out of the reward: it is a second term of the *loss*, with weight
# $\beta$. And it divides by the group's deviation. The two do not go together innocently. In the loss, reward and KL
# pull against each other; divide the reward by its deviation $s$, leave the KL alone, and they balance where
#
# $$\pi \propto p\, e^{r/(\beta s)}.$$
#
# The leash is no longer $\beta$ but $\beta s$, and $s$ depends on where the policy is. We can find the balance by
# repeating: tilt, measure $s$, tilt again.


# %%
def balance(name: str, rounds: int = 300) -> tuple[float, Tensor]:
    """The leash that normalised advantages amount to, and the policy where they come to rest."""
    p, beta = masses(WORLDS[name].reference), WORLDS[name].beta
    r = WORLDS[name].reward(WORLDS[name].reference.outcomes())
    for _ in range(rounds):
        q = tilt(p, r, beta)
        beta = WORLDS[name].beta * ((q * (r - (q * r).sum()) ** 2).sum().sqrt().item() + 1e-4)
    return beta, q


# %%
published = AlignmentConfig(iterations=ROUNDS, group_size=256, leash="loss")
here = WORLDS["chain"]
normalised, centred = (
    by_reward(here, here.reward, published, seed=seed(), loss=clipped_surrogate, advantages=partial(
        group_advantages, scale=scale)) for scale in ("group", "none")
)  # fmt: skip
effective, resting = balance("chain")
print(f"you asked for beta {here.beta}, normalised advantages give you {effective:.3f}")
published_apart = {
    "normalised, to the closed form": total_variation(masses(normalised), best["chain"]),
    "normalised, to the balance": total_variation(masses(normalised), resting),
    "centred, to the closed form": total_variation(masses(centred), best["chain"]),
}
print({name: round(value, 3) for name, value in published_apart.items()})

# %%
figure = Figure(figsize=(8.5, 3), layout="constrained")
for axis, (title, target, policy) in zip(
    figure.subplots(1, 2, sharey=True),
    [("mean only", best["chain"], centred), ("mean and deviation", resting, normalised)],
    strict=True,
):
    draw(axis, "chain", best["chain"], "#cccccc", f"closed form, beta {here.beta}", filled=True)
    draw(axis, "chain", masses(policy), COLOURS["grpo"], "trained")
    axis.plot(places("chain")[0][places("chain")[0].argsort()], target[places("chain")[0].argsort()],
              color=OTHERS[0], linewidth=1, label="predicted")  # fmt: skip
    axis.set(title=title, xlabel=LABELS["chain"], xlim=(-1, 40))
    axis.legend(frameon=False, fontsize=7)
viz.picture(figure, alt="Left, centred advantages reach the closed form. Right, normalised ones overshoot it and lie "
            "on the prediction with the smaller beta.")  # fmt: skip

# %% [markdown]
# No bug, and no surprise once you have seen it: *normalised advantages do not know the scale of your reward*. Multiply
# the reward by ten, and nothing changes but the meaning of $\beta$. It also gives every prompt another leash, the
# shorter the more its rewards differ. In the bandit it is worse:

# %%
for name in WORLDS:
    print(f"{name:8} beta {WORLDS[name].beta} becomes {balance(name)[0]:.4f}")

# %% [markdown]
# There, as the policy settles on the best choice, the spread shrinks, the leash with it, and so on down to nothing.
# With the KL in the *reward*, as you have it, the deviation divides both alike, and the balance stays where it was.
# Dr. GRPO leaves the division out.

# %% [markdown]
# ## 7. Too much of a good thing

# %% [markdown] goal="5.7"
# All your policies came out right because they were given 50,000 answers, or the true reward. Nobody has those. What
# if the reward model has seen a hundred comparisons, and you optimise it as hard as you can?
#
# Call the true reward **gold** and the model a **proxy**. For a falling row of prices $\beta$, tilt $p$ by the
# *proxy*, and report two numbers for each: the distance travelled, $\mathrm{KL}(q\,\|\,p)$, and the mean of *gold*
# under $q$. All tables have one entry an outcome, `betas` one a price; return two tensors `[betas]`.


# %% exercise={"id": "5.7", "name": "frontier", "title": "What a proxy is worth", "points": 3, "minutes": 15, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def frontier(
    p: Float[Tensor, "outcomes"],
    proxy: Float[Tensor, "outcomes"],
    gold: Float[Tensor, "outcomes"],
    betas: Float[Tensor, "betas"],
) -> tuple[Float[Tensor, "betas"], Float[Tensor, "betas"]]:
    """KL to p, and mean of gold, of the policies p e^(proxy / beta) / Z."""
    ### BEGIN SOLUTION
    log_q = torch.log_softmax(p.log() + proxy / betas[:, None], dim=1)
    q = log_q.exp()
    return (q * (log_q - p.log())).sum(dim=1), (q * gold).sum(dim=1)
    ### END SOLUTION


# %% [markdown] hints="5.7"
# <details><summary>Hint 1: all prices at once</summary>
#
# `proxy / betas[:, None]` is a table with one row a price. Your tilt of exercise 5.1 works on every row.
#
# </details>
# <details><summary>Hint 2: the KL</summary>
#
# It is the mean of log q - log p, and the mean is taken over q. With `log_softmax` you have log q without a detour.
#
# </details>
# <details><summary>Hint 3: who judges</summary>
#
# The proxy decides what is drawn, gold what that is worth. The KL comes first, then gold.
#
# </details>

# %% check="5.7"
check("5.7", frontier)

# %% [markdown]
# The mixture again, with a gold reward that is no straight line: *more, up to a point*. The proxy is a sum of bumps all
# along the line, flexible enough to be right. We fit 16 such proxies to 100 comparisons each, 16 to 300, 16 to 30,000.

# %%
HUMPS = torch.arange(-4, 6.5, dtype=torch.float64)


def humps(x: Tensor) -> Float[Tensor, "... humps"]:
    """What the proxy sees of a number: how near it is to each of eleven places."""
    return (-(((x[..., None] - HUMPS) / 0.8) ** 2) / 2).exp()


judged = replace(WORLDS["mixture"], reward=lambda x: x - 0.3 * x**2, features=humps)
outcomes, p = judged.reference.outcomes(), masses(judged.reference)
gold, betas = judged.reward(outcomes), torch.logspace(1.5, -1.5, 100, dtype=torch.float64)
COUNTS, PROXIES = (100, 300, 30_000), choose(smoke=2, cpu=16, gpu=16)

# %%
fitted, walks = {}, {}
for count in COUNTS:
    models = [
        fit_reward(judged, *compare(judged, count, stream), loss=bradley_terry_loss, steps=STEPS)
        for _ in range(PROXIES)
    ]
    fitted[count] = [model(outcomes) for model in models]
    pairs_of = [torch.stack(frontier(p, proxy, gold, betas)) for proxy in fitted[count]]
    walks[count] = torch.stack(pairs_of).mean(0)  # KL and gold, [2, betas], the mean over proxies

# %%
figure = Figure(figsize=(9.5, 3.3), layout="constrained")
left, right = figure.subplots(1, 2)
left.fill_between(outcomes, 6 * p / p.max() - 12, -12, color=COLOURS["base"], alpha=0.4, label="where the samples are")
for proxy in fitted[100][:10]:
    left.plot(outcomes, proxy - (p * (proxy - gold)).sum(), color=OTHERS[1], linewidth=0.8, alpha=0.8)
left.plot(outcomes, gold, color="#777777", linestyle="--", label="gold")
left.set(title="proxies from 100 comparisons", xlabel="number", ylabel="reward", xlim=(-5, 6.5), ylim=(-12, 8))
_ = left.legend(frameon=False, fontsize=7)

# %%
for colour, (count, (distance, value)) in zip(OTHERS, walks.items(), strict=False):
    right.plot(distance.sqrt(), value, color=colour, label=f"{count:,} comparisons")
    right.plot(distance[value.argmax()].sqrt(), value.max(), "o", color=colour)
right.set(title="what optimising them earns", xlabel="square root of the KL", ylabel=f"gold, mean of {PROXIES} proxies")
right.legend(frameon=False, fontsize=7)
viz.picture(figure, alt="Left, proxies agree with gold where samples are and stray beyond. Right, gold against "
            "distance: with few comparisons it rises, turns and falls; with 30,000 it rises and stays.")  # fmt: skip

# %% [markdown]
# On the left, the proxies agree where the samples are, and stray where there are few. On the right, what that does. At
# first every step is a gain, for near the reference even a poor proxy points the right way. Then gold turns: the policy
# has found the places that the proxy overrates, *because* nobody was asked about them. Gao and colleagues (2022)
# measured this shape, gold against the square root of the KL, with language models. More comparisons soften the
# fall; with enough of them there is none.
#
# Tables do not train. Does a policy walk that way too? Here is RLHF with 100 comparisons, next to no leash, and a proxy
# that can only say *more is better*. Each iteration is a point on the way.

# %%
simple = replace(judged, features=lambda x: x[..., None] / 2, beta=0.15)
one = fit_reward(simple, *compare(simple, 100, stream), loss=bradley_terry_loss, steps=STEPS)
way: list[list[float]] = []


def note(row: dict) -> None:
    """KL to the reference, gold and proxy of the policy as it is."""
    q = masses(row["policy"])
    way.append([(q * (q.clamp_min(1e-300) / p).log()).sum(), (q * gold).sum(), (q * one(outcomes)).sum()])


by_reward(simple, one, rlhf_plan, seed=seed(), loss=clipped_surrogate, leash=leashed_rewards, report=note)
distance, value, believed = torch.tensor(way).T

# %%
viz.curves(
    {"proxy": (distance.sqrt(), believed), "gold": (distance.sqrt(), value)},
    xlabel="square root of the KL",
    ylabel="reward",
    alt=f"Proxy and gold along one training run: the proxy rises throughout, gold from {value[0]:.1f} to "
    f"{value.max():.1f} and then down to {value[-1]:.1f}.",
)

# %% [markdown]
# Only the proxy's curve would have been in your training log.
#
# In the explorer you can do the same by hand: the proxy overrates a place where the reference hardly goes. Take
# $\beta$ down, and watch gold.

# %%
TiltExplorer(
    alt="The mixture tilted by a proxy that overrates a remote place, with beta under a slider, and gold against the "
    "KL: it rises, then falls.",
    caption="Optimise the proxy, watch gold.",
    proxy=True,
    beta=2.0,
)

# %% [markdown]
# ## 8. What you have reached
#
# Each method, each world, its samples, and how far from the closed form it ended.

# %%
drawn = ROUNDS * 256
COST = {
    "RWR": f"{SAMPLES:,} judged samples of the reference",
    "RLHF": f"{PAIRS:,} comparisons, {drawn:,} own samples",
    "DPO": f"{PAIRS:,} comparisons",
    "GRPO": f"{drawn:,} own samples, judged",
}
lines = [f"| *untouched* | | {' | '.join(f'*{value:.3f}*' for value in start.values())} |"]
for method, row in apart.items():
    lines.append(f"| {method} | {COST[method]} | {' | '.join(f'{value:.3f}' for value in row.values())} |")
Markdown("\n".join(["| method | samples | bandit | chain | mixture |", "|---|---|---|---|---|", *lines]))

# %% [markdown]
# ## What to take away
#
# - Reward less $\beta$ KL has one optimum, $p\,e^{r/\beta}/Z$. Methods differ in how they get there and what they ask.
# - RWR needs old samples that are good enough. DPO needs comparisons. RLHF and GRPO draw their own samples.
# - With the KL in the reward, training comes to rest. In the loss, mind what else you divide.
# - A learned reward is right where its data were. The leash is what keeps you there.
#
# The cell below writes down what happened here.

# %%
record = write_record(
    "05-alignment",
    {
        "total_variation": {"untouched": start} | apart,
        "samples": {"RWR": SAMPLES, "RLHF": PAIRS + drawn, "DPO": PAIRS, "GRPO": drawn},
        "comparisons": PAIRS,
        "own_samples": drawn,
        "rlhf_to_dpo": between,
        "grpo_kl_in_loss": published_apart | {"beta": here.beta, "effective_beta": effective},
        "gold": {
            str(count): {
                "before": walk[1, 0].item(),
                "peak": walk[1].max().item(),
                "end": walk[1, -1].item(),
                "kl_at_peak": walk[0, walk[1].argmax()].item(),
            }
            for count, walk in walks.items()
        },
        "gold_of_a_run": {"before": value[0].item(), "peak": value.max().item(), "end": value[-1].item()},
    },
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/05.json")
