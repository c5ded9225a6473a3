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
# # Lab 03: make what went well more likely
#
# A pole stands on a cart, and you may push the cart left or right. You do not know the physics, and nobody tells you
# which push was a good one. You only learn, at the end, how long the pole stood. *How do you get better?*
#
# The answer is one line of mathematics from 1992. Here you derive it, write it, hold it against the exact truth in a
# world that is small enough to enumerate, and measure what is wrong with it: noise. Then you take the noise away,
# piece by piece, until the pole stands for as long as the game lasts. At the end the same loss teaches a *generator*,
# and you will see that nothing had to change.
#
# Six exercises, about 75 minutes. Chapter 03 is the text beside it. No GPU is needed: the profile `gpu` does what
# `cpu` does.

# %%
from collections.abc import Callable
from functools import partial

import torch
from IPython.display import Markdown
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

# %%
from pixelpolicy import control, viz
from pixelpolicy.control import reinforce
from pixelpolicy.course import check
from pixelpolicy.course.results import start_timer, write_record
from pixelpolicy.profiles import choose, seed
from pixelpolicy.rl.oracles import chain_distribution, exact_policy_gradient, tilted
from pixelpolicy.viz.figures import OTHERS

torch.set_num_threads(1)  # networks this small are slower on two
lab_clock = start_timer()

# %% [markdown]
# ## 1. A player with dice
#
# Here is a beginner at work: a small network that has learnt nothing. Four numbers go in (place and speed of the cart,
# angle and speed of the pole), two probabilities come out, and a die decides. The film is five times slower than life.

# %%
pole = control.make("CartPole-v1", 1)
beginner = control.policy_for(pole, seed=seed(), hidden=(32, 32))
before_frames = viz.episode_frames(lambda o: beginner.act(o)[0], "CartPole-v1", seed=seed())
viz.film(
    before_frames,
    fps=10,
    shrink=2,
    alt=f"In slow motion: a cart jerks about; its pole tips over within {(len(before_frames) - 1) / 50:.1f} seconds.",
)

# %% [markdown]
# The pole falls over, or the cart leaves the picture, and the game ends; after 500 steps it ends in any case. Each
# step upright pays 1. To improve the network $\theta$ we want the gradient of the expected return
#
# $$J(\theta) = \mathbb E_{\tau\sim p_\theta}[R(\tau)] = \sum_\tau p_\theta(\tau)\,R(\tau),$$
#
# where $\tau$ is an *episode*, all its states and actions, and $R$ its return, the sum of its rewards. The return
# cannot be differentiated: pushes are left or right, and the pole's fall is a yes or no. But only $p_\theta$ depends
# on $\theta$, and $\nabla p = p\,\nabla\log p$. So
#
# $$\nabla J = \sum_\tau p_\theta(\tau)\,R(\tau)\,\nabla\log p_\theta(\tau)
# = \mathbb E\big[R(\tau)\,\nabla\log p_\theta(\tau)\big].$$
#
# An expectation: something we can estimate by *playing*. And the physics drops out. The probability of an episode is a
# product of what the world does and what the player does; its logarithm is a sum, and the world's part does not know
# $\theta$:
#
# $$\nabla\log p_\theta(\tau) = \sum_t \nabla\log\pi_\theta(a_t\mid s_t).$$
#
# $\pi_\theta(a\mid s)$ is the **policy**: the probability of action $a$ in state $s$. The vector
# $\nabla\log\pi_\theta(a \mid s)$ is called the **score** of the action. It says how to move $\theta$ so that $a$
# becomes likelier.

# %% [markdown] goal="3.1"
# The simplest policy has a number (a *logit*) $\theta_k$ for each action and chooses by
# $\pi_k = e^{\theta_k} / \sum_j e^{\theta_j}$, the softmax. Return the score of each chosen action: the gradient of
# $\log\pi_a$ in all the logits. Work it out on paper first; autograd is not needed.


# %% exercise={"id": "3.1", "name": "score", "title": "The score of a choice", "points": 2, "minutes": 10, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def score(logits: Float[Tensor, "batch actions"], chosen: Int[Tensor, "batch"]) -> Float[Tensor, "batch actions"]:
    """Gradient of log softmax(logits)[chosen] in the logits, row by row."""
    ### BEGIN SOLUTION
    one_hot = torch.nn.functional.one_hot(chosen, logits.shape[1])
    return one_hot - logits.softmax(1)
    ### END SOLUTION


# %% [markdown] hints="3.1"
# <details><summary>Hint 1: two terms</summary>
#
# The logarithm of a quotient is a difference: the chosen logit, less the logarithm of a sum of exponentials.
#
# </details>
# <details><summary>Hint 2: each term's slope</summary>
#
# The first term depends on one logit only. The slope of the second in logit k is a quotient that you know by name.
#
# </details>
# <details><summary>Hint 3: what to see at once</summary>
#
# Only the chosen action's entry is positive, and each row sums to 0: what one action gains, the others lose.
#
# </details>

# %% check="3.1"
check("3.1", score)

# %% [markdown]
# One policy over three actions, and your score for each choice it could make:

# %%
three = torch.tensor([1.0, 0.0, -1.5])
scores = score(three.expand(3, 3), torch.arange(3))
figure = Figure(figsize=(8.5, 2.4))
axes = figure.subplots(1, 4, sharey=True)
axes[0].bar(range(3), three.softmax(0), color="#777777")
axes[0].set(title="policy", ylim=(-0.8, 1.05), xticks=range(3))
for number, (axis, row) in enumerate(zip(axes[1:], scores, strict=True)):
    axis.bar(range(3), row, color=[OTHERS[1] if value > 0 else OTHERS[2] for value in row])
    axis.axhline(0, color="#777777", linewidth=0.8)
    axis.set(title=f"score of action {number}", xticks=range(3))
viz.picture(figure, alt="Four bar charts: the probabilities of three actions, and the score of each; only the chosen "
            "action's bar points up, and the rarer the action, the further.")  # fmt: skip

# %% [markdown]
# A rare action has a long score: to see one is a surprise, and says much. And on average, over the policy's own
# choices, the score is zero. This small fact carries half of this lab:

# %%
print("expected score:", [round(value, 9) for value in (three.softmax(0) @ scores).tolist()])

# %% [markdown]
# ## 2. The loss
#
# Now a world we can know completely. A wanderer starts at a camp and makes three moves; each leads to one of four
# places, and each place pays gold. That makes $4^3 = 64$ walks. The policy is a table of logits: for each move and
# each place, one for every place to go next.

# %%
PLACES, GOLD = ("camp", "wood", "lake", "peak"), torch.tensor([2.0, 3.0, 1.0, 9.0]).double()
HABITS = torch.tensor([
    [2.5, 0.5, -0.5, -1.0],  # from the camp: mostly stay
    [2.0, 1.0, 0.5, -0.5],  # from the wood: mostly go home
    [0.5, 0.5, 0.5, 1.5],  # from the lake, which pays least, it is not far to the peak
    [1.0, 0.5, 0.0, 0.5],
]).double()  # fmt: skip
table = HABITS.repeat(3, 1, 1)
walks, chances = chain_distribution(table)
returns = GOLD[walks].sum(1)
truth = exact_policy_gradient(table, lambda walks: GOLD[walks].sum(1))
print(f"{len(walks)} walks, expected gold {chances @ returns:.2f}, most likely:")
for index in chances.argsort(descending=True)[:3].tolist():
    print(
        f"  {' > '.join(PLACES[i] for i in walks[index].tolist())}: chance {chances[index]:.3f}, {returns[index]:.0f}"
    )


# %% [markdown]
# The library's *oracle* has added up all 64 terms of $\nabla J$: that is the truth, to the last digit. Below, the same
# from single walks: the log-probability of each move of a walk, with gradient.


# %%
def move_log_probs(logits: Tensor, walks: Int[Tensor, "walks 3"]) -> Float[Tensor, "walks 3"]:
    """Log-probability of every move of every walk."""
    before = pad(walks[:, :-1], (1, 0))  # where each move starts; the first from the camp, place 0
    return logits.log_softmax(-1)[torch.arange(3), before, walks]


# %% [markdown] goal="3.2"
# Turn the identity into a **loss**: a number whose gradient, *descended*, climbs the expected return. For
# log-probabilities $\ell_i$ and their weights $A_i$ (returns, or something better that we shall call *advantages*),
#
# $$L = -\frac1n\sum_i A_i\,\ell_i .$$
#
# The weights are verdicts: no gradient may flow into them. Advantages `[batch, 1]` beside log-probabilities
# `[batch, steps]` must work too; the mean is over all of them.


# %% exercise={"id": "3.2", "name": "policy_gradient_loss", "title": "The score-function loss", "points": 3, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control", "pixelpolicy.finetune"]}
def policy_gradient_loss(log_probs: Float[Tensor, "*batch"], advantages: Float[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """A loss whose gradient is minus an estimate of the policy gradient."""
    ### BEGIN SOLUTION
    return -(advantages.detach() * log_probs).mean()
    ### END SOLUTION


# %% [markdown] hints="3.2"
# <details><summary>Hint 1: one line</summary>
#
# Multiply, average, and mind the direction in which an optimiser walks.
#
# </details>
# <details><summary>Hint 2: constants</summary>
#
# A tensor becomes a constant for autograd by `.detach()`. It belongs on what is a verdict, never on what shall learn.
#
# </details>
# <details><summary>Hint 3: what it is not</summary>
#
# No exponential, no normalising, no baseline inside: who calls the loss decides what the advantages are.
#
# </details>

# %% check="3.2"
check("3.2", policy_gradient_loss)


# %% [markdown]
# `pixelpolicy.rl.policy_gradient_loss` is this very function. First test: give it *all* walks, each weighed by its
# probability. Then its mean is the expectation, and minus its gradient must be the oracle's.


# %%
def slope(loss_of: Callable, walks: Tensor, weights: Tensor) -> Float[Tensor, "3 4 4"]:
    """The direction in which a loss moves the table: minus its gradient, for whole walks."""
    logits = table.clone().requires_grad_()
    return -torch.autograd.grad(loss_of(move_log_probs(logits, walks).sum(1), weights), logits)[0]


enumerated = slope(policy_gradient_loss, walks, len(walks) * chances * returns)
gap = (enumerated - truth).abs().max().item()
print(f"largest difference between your gradient and the oracle's: {gap:.1e}")
assert gap < 1e-12

# %% [markdown]
# Exact. But CartPole has more episodes than anyone can add up, so we must make do with those that we happen to draw.
# Draw 16 walks and estimate the gradient; do so 300 times; then with 256 walks each. The gradient has 48 numbers; the
# picture shows two of its directions, the true one to the right.

# %%
stream = torch.Generator().manual_seed(seed())
CLOUD = choose(smoke=30, cpu=300, gpu=300)


def draw(count: int) -> Int[Tensor, "count"]:
    """Numbers of walks, drawn by their chances."""
    return torch.multinomial(chances, count, replacement=True, generator=stream)


def estimates(count: int, shift: float = 0.0, repeats: int = CLOUD) -> Float[Tensor, "repeats 48"]:
    """Gradients estimated from so many walks each, by your loss; `shift` is taken off every return."""
    batches = [draw(count) for _ in range(repeats)]
    return torch.stack([slope(policy_gradient_loss, walks[b], returns[b] - shift).flatten() for b in batches])


# %%
right = truth.flatten() / truth.norm()
small = estimates(16)
across = torch.pca_lowrank(small - (small @ right)[:, None] * right, q=1, center=False)[2][:, 0]
figure = Figure(figsize=(6.4, 3.8))
axis = figure.subplots()
for number, (count, cloud) in enumerate({16: small, 256: estimates(256)}.items()):
    points = torch.stack([cloud @ right, cloud @ across]) / truth.norm()
    axis.plot(*points, "o", markersize=3, alpha=0.5, color=OTHERS[number], label=f"{count} walks each")
    axis.plot(*points.mean(1), "X", markersize=11, color=OTHERS[number], markeredgecolor="white")
axis.annotate("", (1, 0), (0, 0), arrowprops={"arrowstyle": "->", "color": "black", "linewidth": 2})
axis.set(xlabel="along the exact gradient (its length = 1)", ylabel="across")
axis.legend(frameon=False, fontsize=8)
viz.picture(figure, alt="Two clouds of estimates about the tip of an arrow, the exact gradient: the one from 16 walks "
            "is many arrows wide, that from 256 a quarter of it. Crosses, their means, lie near the tip.")  # fmt: skip

# %% [markdown]
# Both clouds are centred on the tip of the arrow: the estimator is **unbiased**, it is right on average. And the cloud
# is far wider than the arrow is long. A single estimate points almost anywhere. This is **variance**, and it is the
# whole trouble with the method. In numbers, as error relative to the length of the true gradient:

# %%
COUNTS = choose(smoke=(8, 32), cpu=(8, 32, 128, 512), gpu=(8, 32, 128, 512))
errors = {}
for count in COUNTS:
    found = estimates(count)
    apart = (found.mean(0) - truth.flatten()).norm() / truth.norm()
    errors[count] = ((found - truth.flatten()).square().sum(1).mean().sqrt() / truth.norm()).item()
    chance = errors[count] / CLOUD**0.5
    print(f"{count:4d} walks: error {errors[count]:5.2f}; the mean of all is off by {apart:.2f} (chance: {chance:.2f})")

# %% [markdown]
# Four times the walks, half the error: $1/\sqrt n$, as for every average. Paying that price is the poor way out.
#
# ## 3. A baseline costs nothing
#
# Every walk here earns at least 3. So *every* walk drawn is made likelier, and the good ones win only because they
# push harder. It would be wiser to ask: was it better than I expected? Take a constant $b$, a **baseline**, off each
# return. Does that bias the estimate? On average it adds
#
# $$-\,b\;\mathbb E[\nabla\log p_\theta(\tau)]
# = -\,b\sum_\tau p_\theta(\tau)\frac{\nabla p_\theta(\tau)}{p_\theta(\tau)}
# = -\,b\,\nabla\sum_\tau p_\theta(\tau) = -\,b\,\nabla 1 = 0 .$$
#
# Nothing: probabilities sum to 1 however you turn $\theta$. That is the small fact of section 1. It holds for any $b$
# that does not depend on the action it is held against. First, the scores of whole walks, by *your* `score`:

# %%
before = pad(walks[:, :-1], (1, 0))
move_scores = torch.zeros(64, 3, 3, 4, 4).double()  # [walks, moves, table]: each move touches one row of the table
for t in range(3):
    move_scores[torch.arange(64), t, t, before[:, t]] = score(table[t][before[:, t]], walks[:, t])
move_scores = move_scores.flatten(2)
walk_scores = move_scores.sum(1)
print("expected score of a walk, largest entry:", (chances @ walk_scores).abs().max().item())

# %% [markdown] goal="3.3"
# Which $b$ is best? The variance of one estimate, added up over all parameters, is
#
# $$V(b) = \mathbb E\big[(R - b)^2\,|g|^2\big] - |\nabla J|^2, \qquad g = \nabla\log p_\theta(\tau),$$
#
# a parabola in $b$. Find the bottom. You are given every walk with its probability; $|g|^2$ is the squared length of a
# walk's score.


# %% exercise={"id": "3.3", "name": "best_baseline", "title": "The best baseline", "points": 3, "minutes": 15, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def best_baseline(
    probabilities: Float[Tensor, "walks"],
    scores: Float[Tensor, "walks parameters"],
    returns: Float[Tensor, "walks"],
) -> Float[Tensor, ""]:
    """The constant that, taken off every return, makes the variance of the estimate smallest."""
    ### BEGIN SOLUTION
    weights = probabilities * scores.square().sum(1)
    return (weights * returns).sum() / weights.sum()
    ### END SOLUTION


# %% [markdown] hints="3.3"
# <details><summary>Hint 1: the bottom of a parabola</summary>
#
# Set the derivative in b to zero. The gradient of J does not depend on b, so that term goes.
#
# </details>
# <details><summary>Hint 2: an average with weights</summary>
#
# What remains is a mean of the returns, in which some walks count for more than their probability.
#
# </details>
# <details><summary>Hint 3: the weights</summary>
#
# A walk counts by its probability times the squared length of its score. Divide by the sum of these weights.
#
# </details>

# %% check="3.3"
check("3.3", best_baseline)


# %%
def exact_variance(weights: Float[Tensor, "64 3"]) -> float:
    """Variance of an estimate from one walk whose moves are weighed so, relative to the squared true gradient."""
    terms = (weights[:, :, None] * move_scores).sum(1)
    return ((chances @ terms.square().sum(1)) / truth.square().sum() - 1).item()


value, best = (chances @ returns).item(), best_baseline(chances, walk_scores, returns).item()
shifts = torch.linspace(0, 14, 57)
parabola = [exact_variance((returns - b)[:, None].expand(64, 3)) for b in shifts.tolist()]
tried = {b: estimates(1, shift=b, repeats=choose(smoke=50, cpu=1500, gpu=1500)) for b in (0.0, 4.0, value, 12.0)}
measured = {b: (found.var(0).sum() / truth.square().sum()).item() for b, found in tried.items()}

# %%
figure = Figure(figsize=(6.4, 3.4))
axis = figure.subplots()
axis.plot(shifts, parabola, color=OTHERS[0], label="exact")
axis.plot(measured.keys(), measured.values(), "o", color=OTHERS[2], label="measured")
for b, name, side in ((value, "mean return ", "right"), (best, " best", "left")):
    axis.axvline(b, color="#777777", linestyle="--", linewidth=1)
    axis.text(b, max(parabola) * 0.8, name, ha=side, fontsize=8)
axis.set(xlabel="baseline b", ylabel="variance / |exact gradient|²", ylim=(0, None))
axis.legend(frameon=False, fontsize=8)
variances = {f"b = {b:.2f}": exact_variance((returns - b)[:, None].expand(64, 3)) for b in (0.0, value, best)}
print({name: round(number, 1) for name, number in variances.items()})
viz.picture(figure, alt=f"Variance against the baseline: a parabola, high at 0, low at the mean return {value:.1f}, "
            f"lowest a little to the right of it, at {best:.1f}. Measured dots lie on it.")  # fmt: skip

# %% [markdown]
# A constant has removed most of the noise. The best one is *not* the mean return: walks with long scores, the
# surprising ones, count for more, and here the surprising walks are those to the peak. But near its bottom a parabola
# is flat, so the mean return does nearly as well, and it is far easier to estimate. All of this field uses it.
#
# "Any $b$ that does not depend on the action": what if it does? Let us break the rule in three ways that you will meet
# in code, with batches of only 4 walks. The middle column is the length of the *average* estimate along the true
# gradient, which should be 1.


# %%
def others(batch: Float[Tensor, "repeats n"]) -> Tensor:
    """The mean of the other returns of a batch."""
    return (batch.sum(1, keepdim=True) - batch) / (batch.shape[1] - 1)


RULES = {
    "no baseline": lambda r: r,
    "mean return, known": lambda r: r - value,
    "mean of the others": lambda r: r - others(r),
    "mean of all, its own too": lambda r: r - r.mean(1, keepdim=True),
    "and divided by the deviation": lambda r: (r - r.mean(1, keepdim=True)) / (r.std(1, keepdim=True) + 1e-8),
    "the best of the batch": lambda r: r - r.amax(1, keepdim=True),
}

# %%
batches = draw(4 * choose(smoke=2_000, cpu=50_000, gpu=50_000)).view(-1, 4)
lines, along = ["| taken off each return | along the truth | variance |", "|---|---|---|"], {}
for name, rule in RULES.items():
    found = (rule(returns[batches])[:, :, None] * walk_scores[batches]).mean(1)
    along[name] = (found.mean(0) @ right / truth.norm()).item()
    spread = (found.var(0).sum() / truth.square().sum()).item()
    lines.append(f"| {name} | {along[name]:+.2f} | {spread:.1f} |")
Markdown("\n".join(lines))

# %% [markdown]
# With its own return in the mean, each sample cancels a part of itself: exactly $\frac{n-1}{n}$ of the gradient is
# left, here $\frac34$. That shortens the step and does not turn it. Dividing by the deviation changes the scale batch
# by batch; lab 12 asks what that does. Both are *chosen* in practice. The last row shows that a baseline that looks
# at the outcome is no baseline.
#
# ## 4. What came after
#
# The return of a walk weighs all its moves. But the third move cannot have earned the gold of the first: it had
# been paid already. Such terms are zero on average and noise otherwise. So weigh each move by its **reward to go**
# alone, by what came *after* it.

# %% [markdown] goal="3.4"
# Write it for games with an end. `rewards` and `dones` are `[time, batch]`, one column a copy of the game;
# `dones[t]` says that the episode ended with the step that earned `rewards[t]`. The next row belongs to the next
# episode, so nothing may leak across. A **discount** $\gamma \le 1$ lets what comes later count less:
#
# $$G_t = r_t + \gamma\,(1 - \text{done}_t)\,G_{t+1},$$
#
# and nothing comes after the last row.


# %% exercise={"id": "3.4", "name": "reward_to_go", "title": "Reward to go", "points": 3, "minutes": 15, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def reward_to_go(
    rewards: Float[Tensor, "time batch"], dones: Bool[Tensor, "time batch"], discount: float
) -> Float[Tensor, "time batch"]:
    """What each step earned and what came after it, until its episode's end."""
    ### BEGIN SOLUTION
    returns, following = torch.zeros_like(rewards), torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        following = rewards[t] + discount * (~dones[t]) * following
        returns[t] = following
    return returns
    ### END SOLUTION


# %% [markdown] hints="3.4"
# <details><summary>Hint 1: which way to walk</summary>
#
# Each row needs the one after it. So begin at the last row and go backwards.
#
# </details>
# <details><summary>Hint 2: what to carry</summary>
#
# Carry one number a column: what follows. It begins at zero, is cut where an episode ends, and discounted once a step.
#
# </details>
# <details><summary>Hint 3: the cut</summary>
#
# At the row where dones is True, keep the reward itself and drop what follows. `~dones[t]` is 1 where play goes on.
#
# </details>

# %% check="3.4"
check("3.4", reward_to_go)

# %% [markdown]
# `pixelpolicy.rl.discounted_returns` is this function, and lab 04's `gae` grows from it. On the walks, all 64 at once,
# each a column, and with the baseline that fits: at each move, the mean of what is still to come.

# %%
ends = torch.zeros(3, 64, dtype=torch.bool)
ends[-1] = True
to_go = reward_to_go(GOLD[walks].T, ends, 1.0).T
expected_to_go = chances @ to_go
whole = returns[:, None].expand(64, 3)
pieces = {
    "whole return": whole,
    "reward to go": to_go,
    "whole return - its mean": whole - value,
    "reward to go - its mean\nat each move": to_go - expected_to_go,
}
by_piece = {name: exact_variance(weights) for name, weights in pieces.items()}

# %%
figure = Figure(figsize=(6.4, 2.4))
axis = figure.subplots()
bars = axis.barh(list(by_piece), list(by_piece.values()), color=OTHERS[: len(by_piece)])
axis.bar_label(bars, fmt=" %.0f", fontsize=8)
axis.invert_yaxis()
axis.set(xlabel="variance / |exact gradient|², one walk")
axis.spines[["top", "right"]].set_visible(False)
viz.picture(figure, alt="Exact variances as bars: " + ", ".join(
    f"{name} {number:.0f}" for name, number in by_piece.items()).replace("\n", " ") + ".")  # fmt: skip

# %% [markdown]
# All four are unbiased; the last has the least noise. That is the recipe for CartPole.
#
# ## 5. The pole
#
# We play 32 episodes at once, each to its end. They end at different times, so the batch is ragged: `valid[t, i]` says
# whether episode $i$ is still being played at step $t$. What should a step at time $t$ be compared with? With the
# other episodes *at the same moment*: whoever still stands at step 40 has much behind and, with a falling pole, little
# ahead.

# %% [markdown] goal="3.5"
# Return the baseline: at each step the mean return to go of the episodes that are still being played, the same for the
# whole row. Where nobody plays any more, it is 0, not `nan`.


# %% exercise={"id": "3.5", "name": "mean_of_the_playing", "title": "A baseline for each moment", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def mean_of_the_playing(
    returns: Float[Tensor, "time batch"], valid: Bool[Tensor, "time batch"]
) -> Float[Tensor, "time batch"]:
    """Mean return to go of the episodes still played at each step, for every episode of the row."""
    ### BEGIN SOLUTION
    playing = valid.to(returns.dtype)
    mean = (returns * playing).sum(1, keepdim=True) / playing.sum(1, keepdim=True).clamp_min(1)
    return mean.expand_as(returns)
    ### END SOLUTION


# %% [markdown] hints="3.5"
# <details><summary>Hint 1: along which axis</summary>
#
# One number a row: so sum over dimension 1, the episodes, and never over time.
#
# </details>
# <details><summary>Hint 2: who counts</summary>
#
# Episodes that are over count neither in the sum nor in the number you divide by.
#
# </details>
# <details><summary>Hint 3: shapes and an empty row</summary>
#
# `keepdim=True` leaves a column that `expand_as` makes whole again. `clamp_min(1)` keeps an empty row from dividing by
# zero.
#
# </details>

# %% check="3.5"
check("3.5", mean_of_the_playing)

# %% [markdown]
# Now *everything that trains is yours*: the loss, the reward to go and the baseline. The library plays the episodes,
# divides the advantages by their deviation and takes the optimiser's step. Every five iterations it plays a few games
# greedily, always taking the likelier action, from other first states, and at the end it keeps the policy that did
# best in them. That takes some twenty seconds.

# %%
CONFIG = choose(
    smoke=reinforce.ReinforceConfig(episodes=4, iterations=4, validate_every=2, validation_episodes=4),
    cpu=reinforce.ReinforceConfig(),
    gpu=reinforce.ReinforceConfig(),
)


def train_cart(**pieces: Callable) -> reinforce.ReinforceResult:
    """REINFORCE on CartPole with your loss and the pieces named."""
    return reinforce.train("CartPole-v1", CONFIG, seed=seed(), loss=policy_gradient_loss, **pieces)


yours = train_cart(returns=reward_to_go, baseline=mean_of_the_playing)
print("mean return of the iterations:", [round(row["return"]) for row in yours.log[::6]])


# %% [markdown]
# And without the pieces, from the same weights and with as many episodes: without the baseline, and with neither
# baseline nor reward to go, which is the estimator of section 2.


# %%
def nothing(returns: Tensor, valid: Tensor) -> Tensor:
    """No baseline."""
    return torch.zeros_like(returns)


def whole_return(rewards: Tensor, dones: Tensor, discount: float) -> Tensor:
    """The return of the whole episode for each of its steps."""
    return reward_to_go(rewards, dones, discount)[:1].expand_as(rewards)


runs = {
    "yours": yours,
    "without the baseline": train_cart(returns=reward_to_go, baseline=nothing),
    "without both": train_cart(returns=whole_return, baseline=nothing),
}
viz.curves(
    {name: ([row["iteration"] for row in run.log], [row["return"] for row in run.log]) for name, run in runs.items()},
    levels={"the longest possible": 500},
    xlabel=f"iteration ({CONFIG.episodes} episodes each)",
    ylabel="mean return while training",
    alt="Returns against iterations: " + "; ".join(
        f"{name} from {run.log[0]['return']:.0f} to {run.log[-1]['return']:.0f}" for name, run in runs.items()),
)  # fmt: skip

# %% [markdown]
# The judge is somebody else: 100 greedy episodes from first states that nothing was chosen on, for the beginner and for
# each run.

# %%
judge = partial(control.evaluate, name="CartPole-v1", episodes=choose(smoke=10, cpu=100, gpu=100), seed=500 + seed())
judged = {"beginner": judge(beginner.greedy)} | {name: judge(run.policy.greedy) for name, run in runs.items()}
for name, played in judged.items():
    at_limit = (played == 500).float().mean()
    print(f"{name:21} {played.mean():6.1f} steps, worst {played.min():.0f}, at the limit {at_limit:.0%}")

# %% [markdown]
# Before and after, from the same start, at twice the speed of life:

# %%
after_frames = viz.episode_frames(yours.policy.greedy, "CartPole-v1", seed=seed(), every=2)
viz.film(
    viz.side_by_side([before_frames[::2], after_frames]),
    shrink=2,
    alt="Left, the beginner's pole tips over at once. Right, the trained one stays upright with small pushes "
    f"for {judged['yours'].mean() / 50:.0f} seconds on average.",
)

# %% [markdown]
# What has it learnt? The network has four inputs; hold the cart still in the middle and look at the other two.

# %%
angle, speed = torch.meshgrid(torch.linspace(-0.2, 0.2, 61), torch.linspace(-1.5, 1.5, 61), indexing="xy")
states = torch.stack([torch.zeros_like(angle), torch.zeros_like(angle), angle, speed], -1).view(-1, 4)
figure = Figure(figsize=(7.6, 3.0), layout="constrained")
axes = figure.subplots(1, 2, sharey=True)
for axis, (name, policy) in zip(axes, {"beginner": beginner, "yours": yours.policy}.items(), strict=True):
    with torch.no_grad():
        pushes = policy.network(states).softmax(-1)[:, 1].view(61, 61)
    image = axis.pcolormesh(angle, speed, pushes, cmap="PuOr", vmin=0, vmax=1)
    axis.set(title=name, xlabel="angle (rad), right is positive")
axes[0].set_ylabel("speed of the angle (rad/s)")
figure.colorbar(image, label="chance to push right")
viz.picture(figure, alt="Chance to push right, by angle and speed of the pole. The beginner: one half everywhere. "
            "Trained: a sharp border, nearly level. Where the pole moves right it pushes right, else left; the more "
            "the pole leans to one side, the sooner it pushes there.")  # fmt: skip

# %% [markdown]
# It looks at where the pole is *going* more than at where it is, and puts the cart there. Nobody told it.
#
# ## 6. A generator is the same problem
#
# A *sampler* draws numbers from a mixture of three bumps: it first chooses a bump, then a place in it. A critic looks
# at the number, and only says yes or no. It says yes between 0.8 and 1.6, where few samples fall.

# %%
start = {
    "logits": torch.tensor([1.0, 0.6, -0.4]),
    "means": torch.tensor([-2.0, 0.0, 2.0]),
    "log_stds": torch.full((3,), 0.5).log(),
}


def accepted(x: Tensor) -> Tensor:
    """1 where the critic says yes, else 0. There is no gradient in it."""
    return ((x > 0.8) & (x < 1.6)).float()


# %% [markdown]
# | | a pole on a cart | this sampler | a text-to-image model (lab 07) |
# |---|---|---|---|
# | episode | pushes until the pole falls | two decisions | some tens of denoising steps |
# | action | left or right | a bump; then a place | the next, less noisy latent |
# | policy | softmax of a network | softmax; then a Gaussian | a Gaussian about the network's guess |
# | reward | 1 a step | 0, then yes or no | 0, ..., then a verdict |
#
# So write down how likely its decisions were.

# %% [markdown] goal="3.6"
# Return the log-probabilities of the two decisions of each sample as `[batch, 2]`: of the chosen bump $k$ by
# $\text{softmax}(\text{logits})$, and of the place $x$ by $\mathcal N(\mu_k, \sigma_k^2)$ with
# $\sigma_k = e^{\text{log\_stds}_k}$:
#
# $$\log\mathcal N(x;\mu,\sigma^2) = -\frac{(x-\mu)^2}{2\sigma^2} - \log\sigma - \tfrac12\log 2\pi .$$
#
# $x$ was drawn and is a fact; the gradient goes into logits, means and log_stds.


# %% exercise={"id": "3.6", "name": "decision_log_probs", "title": "A sampler's decisions", "points": 3, "minutes": 15, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def decision_log_probs(
    logits: Float[Tensor, "bumps"],
    means: Float[Tensor, "bumps"],
    log_stds: Float[Tensor, "bumps"],
    bumps: Int[Tensor, "batch"],
    x: Float[Tensor, "batch"],
) -> Float[Tensor, "batch 2"]:
    """Log-probability of the chosen bump, and log-density of the place within it."""
    ### BEGIN SOLUTION
    of_bump = logits.log_softmax(0)[bumps]
    gaussian = torch.distributions.Normal(means[bumps], log_stds[bumps].exp())
    return torch.stack([of_bump, gaussian.log_prob(x)], 1)
    ### END SOLUTION


# %% [markdown] hints="3.6"
# <details><summary>Hint 1: look up, then compute</summary>
#
# Indexing with `bumps` gives each sample the mean and the deviation of its own bump.
#
# </details>
# <details><summary>Hint 2: two columns</summary>
#
# One column from `log_softmax`, one from the Gaussian. `torch.stack` along dimension 1 joins them.
#
# </details>
# <details><summary>Hint 3: use what is there</summary>
#
# `torch.distributions.Normal` has `log_prob`; it wants the deviation, not its logarithm and not the variance.
#
# </details>

# %% check="3.6"
check("3.6", decision_log_probs)


# %% [markdown]
# The training loop, whole. Look at the line with the loss: it is the one that balanced the pole.


# %%
def base_log_density(x: Tensor, parts: dict[str, Tensor] = start) -> Tensor:
    """Log-density of the mixture at x, whichever bump it came from."""
    every = [decision_log_probs(*parts.values(), torch.full(x.shape, k), x).sum(1) for k in range(3)]
    return torch.stack(every).logsumexp(0)


def train_sampler(leash: float, iterations: int = choose(smoke=5, cpu=600, gpu=600)) -> dict[str, Tensor]:
    """REINFORCE on the sampler; each sample pays `leash` for each nat by which it is likelier than before."""
    parts = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    optimizer, stream = torch.optim.Adam(parts.values(), lr=0.02), torch.Generator().manual_seed(seed())
    for _ in range(iterations):
        bumps, x = sample(parts, 256, stream)
        paid = (base_log_density(x, parts) - base_log_density(x)).detach()
        reward = accepted(x) - leash * paid
        loss = policy_gradient_loss(decision_log_probs(*parts.values(), bumps, x), (reward - reward.mean())[:, None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in parts.items()}


# %%
@torch.no_grad()
def sample(parts: dict[str, Tensor], count: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Bumps and places."""
    bumps = torch.multinomial(parts["logits"].softmax(0), count, replacement=True, generator=stream)
    noise = torch.randn(count, generator=stream)
    return bumps, parts["means"][bumps] + parts["log_stds"].exp()[bumps] * noise


LEASH = 0.25
samplers = {"before": start, "after": train_sampler(0.0), "after, on a leash": train_sampler(LEASH)}

# %%
grid = torch.linspace(-4, 4, 801)
figure = Figure(figsize=(7.6, 3.2))
axis = figure.subplots()
axis.axvspan(0.8, 1.6, color="#999999", alpha=0.25, label="accepted")
for number, (name, parts) in enumerate(samplers.items()):
    density = base_log_density(grid, parts).exp()
    axis.plot(grid, density, color=("#777777", *OTHERS)[number], linewidth=2, label=name)
mass = base_log_density(grid).softmax(0)
goal = tilted(mass, accepted(grid), LEASH) / (grid[1] - grid[0])
axis.plot(grid, goal, ":", color="black", linewidth=1, label="best there is on this leash")
axis.set(xlabel="x", ylabel="density", ylim=(0, 3))
axis.legend(frameon=False, fontsize=8)
viz.picture(figure, alt="Density of the sampler before: three bumps, little in the accepted strip. After: one narrow "
            "spike inside the strip. On a leash: more in the strip, and the old bumps beside it.")  # fmt: skip

# %%
stream, spread_of, share_of = torch.Generator().manual_seed(1000 + seed()), {}, {}
for name, parts in samplers.items():
    x = sample(parts, 20_000, stream)[1]
    share_of[name], spread_of[name] = accepted(x).mean().item(), x.std().item()
    print(f"{name:18} accepted {share_of[name]:6.1%}, standard deviation of the samples {spread_of[name]:.2f}")

# %% [markdown]
# It works, with the loss that balanced the pole. And it works *too well*: nearly every sample is accepted, and they are
# nearly all the same. The critic said what it wanted and got nothing else. A generator that draws one good picture
# for ever is worth little; so samples that have become much likelier than they were can be made to pay for it. Then
# the sampler keeps its other bumps. The dotted line is the best that any sampler could do at this price; three bumps
# cannot draw its sharp edges, but they come near. Where it comes from, chapter 05 derives: it is the compass of
# everything after.
#
# ## What to take away
#
# - $\nabla J = \mathbb E[R\,\nabla\log p]$: samples, their verdicts and the gradient of their log-probability are all
#   it takes. Neither the physics nor the critic is differentiated.
# - The estimate is exact on average and noisy. Error falls as $1/\sqrt n$.
# - A baseline that does not depend on the action adds no bias, because probabilities sum to 1. The best one weighs
#   returns by the squared length of the score; the mean return is nearly as good.
# - A step answers for what came after it, not for what was paid before.
# - A generator is a policy. Only the log-probability had to be written anew.
#
# Each batch of episodes was used once and thrown away. Lab 04 takes many steps from each, and learns what that costs.

# %%
record = write_record(
    "03-policy-gradient",
    {
        "cartpole_greedy_return": {"before": judged["beginner"].mean().item(), "after": judged["yours"].mean().item()},
        "cartpole_greedy_worst": judged["yours"].min().item(),
        "cartpole_greedy_return_without": {
            "baseline": judged["without the baseline"].mean().item(), "both": judged["without both"].mean().item()
        },
        "cartpole_episodes": CONFIG.episodes * CONFIG.iterations,
        "gradient_difference_to_enumeration": gap,
        "estimator_error": {str(count): error for count, error in errors.items()},
        "relative_variance": {name.replace("\n", " "): number for name, number in by_piece.items()},
        "relative_variance_by_baseline": variances,
        "mean_estimate_along_truth": along,
        "sampler_accepted": share_of,
        "sampler_spread": spread_of,
    },
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)  # fmt: skip
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/03.json")
