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
# # Lab 04: PPO, or how far to trust one batch
#
# In lab 03 a policy learnt from whole episodes, one careful step a batch, and threw the batch away. Slow, but safe.
# *Can you take many steps on the same batch without falling off a cliff?* The answer is called PPO, and it has trained
# walking robots, players of video games, and the first assistants that follow instructions.
#
# You write its seven pieces: the critic's loss, the advantages, the clipped loss, two small screws, the density of a
# Gaussian action, and (for the curious) the rival's gradient. Then *your own functions* balance a pole and swing up a
# pendulum, each in well under a minute. Chapter 04 is the text beside it.
#
# Seven exercises, about 80 minutes. Two of your functions come back: lab 09 and lab 12 import `clipped_surrogate`
# unchanged and put it to a text-to-image model.

# %%
import copy
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

# %%
from pixelpolicy import control, viz
from pixelpolicy.control import ppo
from pixelpolicy.course import check
from pixelpolicy.course.results import start_timer, timer, write_record
from pixelpolicy.profiles import choose, seed
from pixelpolicy.viz.figures import OTHERS
from pixelpolicy.viz.film import episode_frames, film, side_by_side
from pixelpolicy.widgets import ClipExplorer

# %% [markdown]
# ## 1. An actor and a critic
#
# The pole again: four numbers in, left or right out, one point for every moment upright, at most 500. Here is an actor
# that knows nothing. It is a network of 64 and 64 units whose last layer begins near zero, so it is undecided, and
# undecided is soon over.

# %%
lab_clock = start_timer()
torch.set_num_threads(1)  # networks this small run slower on two
EPISODES = choose(smoke=4, cpu=100, gpu=100)
novice = control.policy_for(control.make("CartPole-v1", 1), seed=seed())
cartpole_before = control.evaluate(novice.greedy, "CartPole-v1", episodes=EPISODES, seed=1000 + seed())
print(f"greedy return of the novice: {cartpole_before.mean():.0f} of 500")
film(
    episode_frames(novice.greedy, "CartPole-v1", seed=seed(), every=2),
    alt="A cart with a pole on it. The pole tips over within a moment, and the episode ends.",
    shrink=2,
)

# %% [markdown]
# REINFORCE asks of each action: *what return followed?* That number is honest and noisy: it holds all the luck of the
# rest of the episode. An **actor-critic** keeps a second network beside the actor, the **critic** $V(s)$, which learns
# what return to expect from a state. Then an action need not be judged by all that followed, only by whether things
# went better than expected.
#
# How does a critic learn? From its own next guess. After a step from $s$ to $s'$ with reward $r$, what the step turned
# out to be worth is $y = r + \gamma V(s')$, where the discount $\gamma$ says how much less a later reward counts. The
# critic moves towards $y$. This is the temporal difference of lab 02.

# %% [markdown] goal="4.1"
# There is one trap, and much public code has fallen into it. Episodes stop for two reasons. The pole fell: the world is
# over, nothing more was to be had, $y = r$. Or the clock ran out (CartPole stops at 500 steps, Pendulum at 200): the
# world would have gone on, and the state it stopped in was worth $V(s')$ as any other. Gymnasium calls the first
# *terminated*, the second *truncated*.
#
# $$L = \frac1{2n} \sum_i \big(V_i - y_i\big)^2, \qquad
# y_i = r_i + \gamma\, V'_i \cdot [\text{not terminated}_i]$$
#
# The target $y$ is a fact, not a wish: no gradient may flow into it.


# %% exercise={"id": "4.1", "name": "value_loss", "title": "The critic's loss", "points": 2, "minutes": 12, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def value_loss(
    values: Float[Tensor, "batch"],
    rewards: Float[Tensor, "batch"],
    next_values: Float[Tensor, "batch"],
    terminated: Bool[Tensor, "batch"],
    truncated: Bool[Tensor, "batch"],
    discount: float,
) -> Float[Tensor, ""]:
    """Half the mean squared one-step error of a critic."""
    ### BEGIN SOLUTION
    targets = rewards + discount * next_values * ~terminated
    return (values - targets.detach()).square().mean() / 2
    ### END SOLUTION


# %% [markdown] hints="4.1"
# <details><summary>Hint 1: the target first</summary>
#
# Compute all targets in one line. A mask of booleans can be multiplied, and `~mask` turns it round.
#
# </details>
# <details><summary>Hint 2: two kinds of end</summary>
#
# One of the two masks is a decoy: a state in which the clock ran out is worth what the critic says.
#
# </details>
# <details><summary>Hint 3: what moves</summary>
#
# `.detach()` the target as a whole. Then square, average, halve.
#
# </details>

# %% check="4.1"
check("4.1", value_loss)


# %% [markdown]
# Your loss in the smallest of worlds: one room, a reward of 1 at every step, for ever. Its worth at $\gamma = 0.9$ is
# $1 + 0.9 + 0.81 + \dots = 10$. We watch it in episodes of 8 steps, because nobody has time for ever. The critic is a
# single number. Beside it a second critic that is told that each episode *ended*.


# %%
def room_critic(clock_is_end: bool, iterations: int = 400) -> list[float]:
    """A critic of one room, trained by your loss on episodes that a clock stops after 8 steps."""
    value, history = torch.zeros(1, requires_grad=True), []
    stop, never = torch.arange(1, 9) == 8, torch.zeros(8, dtype=torch.bool)
    ends = (stop, never) if clock_is_end else (never, stop)
    optimiser = torch.optim.SGD([value], lr=0.2)
    for _ in range(iterations):
        optimiser.zero_grad()
        value_loss(value.expand(8), torch.ones(8), value.expand(8), *ends, 0.9).backward()
        optimiser.step()
        history.append(value.item())
    return history


rooms = {"the clock ran out": room_critic(False), "taken for an end": room_critic(True)}
viz.curves(
    {name: (range(len(history)), history) for name, history in rooms.items()},
    levels={"what the room is worth": 10.0},
    xlabel="step of training",
    ylabel="value of the room",
    alt=f"Two critics of the same room: one climbs to {rooms['the clock ran out'][-1]:.1f}, the true worth; the other "
    f"stops at {rooms['taken for an end'][-1]:.1f}.",
)

# %% [markdown]
# The second critic is off by more than half, for good, and no amount of training mends it. It would also believe that
# every state becomes worthless at the 500th step, though the state does not say which step it is.
#
# ## 2. Better than expected?
#
# With a critic, one step already gives a verdict: the **one-step error** $\delta = r + \gamma V(s') - V(s)$, how much
# better things went than expected. It has little noise, but it trusts the critic, who may be wrong. The return of
# lab 03 trusts nobody and is noisy. Between the two there is a dial.

# %% [markdown] goal="4.2"
# **Generalised advantage estimation** (Schulman and colleagues, 2016) adds up later errors, each counted
# $\gamma\lambda$ times less than the one before, up to the end of the episode:
#
# $$A_t = \delta_t + \gamma\lambda\,\delta_{t+1} + (\gamma\lambda)^2 \delta_{t+2} + \dots
# \qquad\text{or}\qquad A_t = \delta_t + \gamma\lambda\,[\text{not done}_t]\,A_{t+1},$$
#
# with $\delta_t = r_t + \gamma\,[\text{not done}_t]\,V_{t+1} - V_t$. All tensors are `[time, batch]`; `values[t]`
# judges the state before step $t$, `last_value` the state after the last step, and `dones[t]` says that the episode
# ended with step $t$. (Truncation is dealt with before you are called: the collector puts a reset step there whose
# error is 0.)


# %% exercise={"id": "4.2", "name": "gae", "title": "Generalised advantages", "points": 3, "minutes": 20, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def gae(
    rewards: Float[Tensor, "time batch"],
    values: Float[Tensor, "time batch"],
    dones: Bool[Tensor, "time batch"],
    last_value: Float[Tensor, "batch"],
    discount: float,
    lam: float,
) -> Float[Tensor, "time batch"]:
    """Generalised advantages of each step, cut where an episode ends."""
    ### BEGIN SOLUTION
    advantages, running, following = [], torch.zeros_like(last_value), last_value
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + discount * following * ~dones[t] - values[t]
        running = delta + discount * lam * running * ~dones[t]
        advantages.append(running)
        following = values[t]
    return torch.stack(advantages[::-1])
    ### END SOLUTION


# %% [markdown] hints="4.2"
# <details><summary>Hint 1: which way</summary>
#
# The second form of the formula needs the advantage of the next step. So begin with the last step and go back.
#
# </details>
# <details><summary>Hint 2: what to carry along</summary>
#
# Two things: the advantage of the following step (0 after the last), and the value of the following state
# (`last_value` after the last).
#
# </details>
# <details><summary>Hint 3: an end cuts twice</summary>
#
# After an end nothing is worth anything, and the errors of the next episode are not this one's merit. The mask stands
# in both terms.
#
# </details>

# %% check="4.2"
check("4.2", gae)


# %% [markdown]
# What the dial does, where everything is known. Twelve houses stand in a ring; a step into house $k$ pays
# $\cos(2\pi k/12)$, and a walker strolls left, right, or stays. How much better is it to step left than right from
# house 3? An equation says so exactly. We ask your advantages, with a critic that has learnt only half: it says
# $V/2$ everywhere.

# %%
HOUSES, DISCOUNT, LENGTH = 12, 0.9, 60
WALKS = choose(smoke=200, cpu=4000, gpu=4000)
pay = torch.cos(2 * math.pi * torch.arange(HOUSES).double() / HOUSES)
moves = sum(torch.eye(HOUSES).double().roll(step, 1) for step in (-1, 0, 1)) / 3
worth = torch.linalg.solve(torch.eye(HOUSES).double() - DISCOUNT * moves, moves @ pay)
exact_gap = (pay[2] + DISCOUNT * worth[2] - pay[4] - DISCOUNT * worth[4]).item()


# %%
def advantages_after(first: int, lams: list[float], stream: torch.Generator) -> dict[float, Tensor]:
    """Your advantage of the first step of many walks from house 3, by lam."""
    path = torch.full((LENGTH + 1, WALKS), 3)
    steps = torch.randint(-1, 2, (LENGTH, WALKS), generator=stream)
    steps[0] = first
    path[1:] += steps.cumsum(0)
    path %= HOUSES
    rewards, critic = pay[path[1:]], worth[path] / 2
    never = torch.zeros(LENGTH, WALKS, dtype=torch.bool)
    return {lam: gae(rewards, critic[:-1], never, critic[-1], DISCOUNT, lam)[0] for lam in lams}


# %%
LAMS = [0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0]
stream = torch.Generator().manual_seed(seed())
left, right = advantages_after(-1, LAMS, stream), advantages_after(+1, LAMS, stream)
bias = {lam: ((left[lam] - right[lam]).mean() - exact_gap).item() for lam in LAMS}
spread = {lam: (left[lam] - right[lam]).std().item() for lam in LAMS}
errors = {n: [math.hypot(bias[lam], spread[lam] / n**0.5) for lam in LAMS] for n in (1, 4, 16, 64)}
viz.curves(
    {f"mean of {n} walk{'s' * (n > 1)}": (LAMS, row) for n, row in errors.items()},
    levels={"bias of lam = 0": abs(bias[0.0])},
    xlabel="lam",
    ylabel="error of 'left is better by ...'",
    alt="Error against lam for means of 1, 4, 16 and 64 walks. Each curve has its lowest point further right than the "
    "one before: " + ", ".join(f"{LAMS[row.index(min(row))]} for {n}" for n, row in errors.items()) + ".",
)

# %%
print(f"left is better by {exact_gap:.2f}, exactly")
for lam in (0.0, 0.9, 1.0):
    print(f"lam {lam:.1f}: off by {bias[lam]:+.2f} on average, and one walk by {spread[lam]:.2f} more, up or down")
best_lam = {n: LAMS[row.index(min(row))] for n, row in errors.items()}

# %% [markdown]
# At $\lambda = 0$ there is no noise and the critic's whole error; at $\lambda = 1$ no error on average, and all the
# noise. **The more walks you average, the higher the best $\lambda$**: noise averages out, a wrong critic does not.
# People set 0.95 and forget it. Now you know what they set.
#
# ## 3. How far to trust a batch
#
# A batch was played by the actor as it was. After one step of the optimiser it is another actor, and the batch speaks
# of somebody else. The **ratio** $\rho = \pi_{\text{new}}(a|s)\,/\,\pi_{\text{old}}(a|s)$ corrects for that: weigh each
# advantage by how much likelier its action has become, and the average $\frac1n\sum \rho A$ promises how much better
# the new actor does. The promise holds close to the old actor. Further out, it is made of the few actions that happened
# to be tried. *Trust region policy optimisation* (TRPO) climbs the promise while a KL divergence stays small. PPO gets
# nearly the same from a `max`.

# %% [markdown] goal="4.3"
# Clip the ratio to $[1-c,\ 1+c]$, and of the two losses take the worse:
#
# $$L = \operatorname{mean} \; \max\big(-A\rho,\; -A \operatorname{clip}(\rho, 1-c, 1+c)\big)$$
#
# A good action is pushed up until it is $1+c$ times as likely, then left alone. A bad one is pushed down to $1-c$. And
# what moved the *wrong* way is always called back, from however far.
#
# What you write here is not for CartPole only. **Labs 09 and 12 import this very function**,
# `pixelpolicy.rl.clipped_surrogate`, with a text-to-image model in the place of the actor.


# %% exercise={"id": "4.3", "name": "clipped_surrogate", "title": "The clipped surrogate", "points": 3, "minutes": 15, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def clipped_surrogate(
    log_probs: Float[Tensor, "batch"],
    old_log_probs: Float[Tensor, "batch"],
    advantages: Float[Tensor, "batch"],
    clip_range: float,
) -> Float[Tensor, ""]:
    """PPO's clipped objective as a loss: one number to descend."""
    ### BEGIN SOLUTION
    ratio = torch.exp(log_probs - old_log_probs)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(-advantages * ratio, -advantages * clipped).mean()
    ### END SOLUTION


# %% [markdown] hints="4.3"
# <details><summary>Hint 1: a quotient from logarithms</summary>
#
# You are given logarithms. Their difference is the logarithm of the quotient.
#
# </details>
# <details><summary>Hint 2: two candidates</summary>
#
# Keep the free ratio and the clipped one (`Tensor.clamp`). Each, times minus the advantage, is a loss.
#
# </details>
# <details><summary>Hint 3: the worse of two losses</summary>
#
# Worse means larger. Choose sample by sample with `torch.maximum`, then average.
#
# </details>

# %% check="4.3"
check("4.3", clipped_surrogate)

# %% [markdown]
# Now the cliff. We let an actor learn for a while (your `gae`, your `clipped_surrogate`) and have it play four batches.
# From each batch *alone* we then take 90 steps: with your loss, and with the bare promise. Every 15 steps we ask two
# questions. What does the batch promise? And what does the actor really earn?

# %%
short = replace(ppo.PPOConfig(), iterations=choose(smoke=2, cpu=15, gpu=15), anneal=False)
envs = control.make("CartPole-v1", short.copies)
half_trained = ppo.PPO(envs, short, seed=seed(), loss=clipped_surrogate, estimator=gae)
for _ in range(short.iterations):
    half_trained.iteration()
batches = [half_trained.play() for _ in range(choose(smoke=1, cpu=4, gpu=4))]


def promise(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """The surrogate without a clip."""
    return -(advantages * torch.exp(log_probs - old_log_probs)).mean()


# %%
def earns(policy) -> float:
    """The mean return of 32 episodes, with actions drawn as in training."""
    return control.evaluate(lambda o: policy.act(o)[0], "CartPole-v1", episodes=32, seed=seed()).mean().item()


def squeeze(loss_of: Callable, batch: dict[str, Tensor], steps: int, every: int = 15) -> dict[str, list[float]]:
    """Many steps of one optimiser on the one batch."""
    policy, rows = copy.deepcopy(half_trained.policy), {"promise": [], "return": [], "kl": []}
    optimiser = torch.optim.Adam(policy.parameters(), lr=3e-3)
    for step in range(steps + 1):
        log_probs = policy.log_prob(batch["observations"], batch["actions"])
        if step % every == 0:
            shift = (log_probs - batch["log_probs"]).detach()
            rows["promise"].append(-promise(shift, torch.zeros_like(shift), batch["advantages"], 0.2).item())
            rows["kl"].append((shift.exp() - 1 - shift).mean().item())
            rows["return"].append(earns(policy))
        optimiser.zero_grad()
        loss_of(log_probs, batch["log_probs"], batch["advantages"], 0.2).backward()
        optimiser.step()
    return rows


# %%
STEPS = choose(smoke=15, cpu=90, gpu=90)
squeezed = {
    name: [squeeze(loss_of, batch, STEPS) for batch in batches]
    for name, loss_of in (("your clipped loss", clipped_surrogate), ("the bare promise", promise))
}
labels = {"promise": "promised advantage", "return": "what it really earns", "kl": "KL from the old actor (nats)"}
figure = Figure(figsize=(9.5, 2.9), layout="constrained")
for axis, (key, label) in zip(figure.subplots(1, 3), labels.items(), strict=True):
    for colour, marker, (name, runs) in zip(OTHERS, "os", squeezed.items(), strict=False):
        for number, rows in enumerate(runs):
            style = {"marker": marker, "color": colour, "markersize": 4, "label": "" if number else name}
            axis.plot(range(0, STEPS + 1, 15), rows[key], **style)
    axis.set(xlabel="steps on the same batch", title=label)
    axis.grid(alpha=0.25)
figure.axes[0].legend(frameon=False, fontsize=8)
endings = {name: [round(rows["return"][-1]) for rows in runs] for name, runs in squeezed.items()}
viz.picture(figure, alt=f"Promise, return and KL over steps on one batch, for {len(batches)} batches. The bare promise "
            f"promises far more and runs away from the old actor. The returns at the end: {endings}.")  # fmt: skip

# %%
start = squeezed["your clipped loss"][0]["return"][0]
print(f"the actor earned {start:.0f} before; after {STEPS} steps on one batch:")
for name, ends in endings.items():
    print(f"  {name:18} {ends}")

# %% [markdown]
# Look at the left panel alone, and the bare promise is the better loss: it promises several times as much, on every
# batch. The middle panel is the truth: where it leads is a lottery. **An objective that is only right nearby must not
# be climbed far.** In chapter 05 the same happens to a reward model, and in chapter 12 to a verifier. Your clipped loss
# stops by itself: once the good actions are 20 % likelier, there is nothing left to gain.
#
# A note in honesty: the clip is no wall. It takes the reward for going further away, but an optimiser with momentum may
# still coast, and the KL is not bounded. That is why PPO reports it.
#
# ## 4. Two small screws
#
# Advantages come in the units of the reward, and the learning rate should not have to know them.

# %% [markdown] goal="4.4"
# Take the mean off, divide by the standard deviation (the population's: divide by $n$), with $10^{-8}$ added to it,
# over *all* numbers of the batch. Then about half of the actions are pushed up, half down, whatever the units. Lab 12's
# `group_advantages` does the same, group by group.


# %% exercise={"id": "4.4", "name": "normalise", "title": "Normalised advantages", "points": 1, "minutes": 5, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def normalise(advantages: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Advantages with mean 0 and standard deviation 1 over the whole batch."""
    ### BEGIN SOLUTION
    return (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
    ### END SOLUTION


# %% [markdown] hints="4.4"
# <details><summary>Hint 1: which mean</summary>
#
# Without a dimension given, `mean` and `std` take all numbers at once. That is what is wanted.
#
# </details>
# <details><summary>Hint 2: which deviation</summary>
#
# `Tensor.std` divides by n - 1 unless its argument `correction` says otherwise.
#
# </details>
# <details><summary>Hint 3: when all are equal</summary>
#
# Then the deviation is 0. The small number belongs to the deviation, inside the brackets, and nothing is written into
# the tensor that you were given.
#
# </details>

# %% check="4.4"
check("4.4", normalise)

# %% [markdown] goal="4.5"
# The other screw keeps the actor curious. The **entropy** of its choice, $H = -\sum_a p_a \log p_a$ in nats, is
# $\log n$ where all $n$ actions are equally likely and 0 where it is sure. A little of it, added to what is climbed,
# holds off the moment when the actor stops trying. `logits` are `[batch, actions]`, $p = \operatorname{softmax}$ of
# them. Return one number a row. It must survive an actor that is *very* sure.


# %% exercise={"id": "4.5", "name": "entropy", "title": "The entropy of a choice", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def entropy(logits: Float[Tensor, "batch actions"]) -> Float[Tensor, "batch"]:
    """Entropy of softmax(logits), in nats."""
    ### BEGIN SOLUTION
    log_probs = logits.log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)
    ### END SOLUTION


# %% [markdown] hints="4.5"
# <details><summary>Hint 1: two ingredients</summary>
#
# You need each probability and its logarithm. The logarithm weighs nothing by itself: multiply, then sum.
#
# </details>
# <details><summary>Hint 2: very sure</summary>
#
# A probability may round to 0, and log 0 is minus infinity. `log_softmax` computes the logarithm without that detour.
#
# </details>
# <details><summary>Hint 3: shape and sign</summary>
#
# Sum over the last dimension only. Entropy is never negative.
#
# </details>

# %% check="4.5"
check("4.5", entropy)


# %% [markdown]
# Both screws at work, on 500 gamblers at once. Each has three levers: one pays 0.5 every time, one pays 1 in six cases
# of ten (better on average!), one pays nothing. A gambler pulls four times a round and learns. Whoever is unlucky with
# the good lever at first drops it for good. And we pay in three currencies.


# %%
def gamblers(currency: float, weight: float, scaled: bool, rounds: int, count: int = 300) -> tuple[float, float]:
    """Share of gamblers who end on the best lever, and their mean entropy."""
    logits, stream = torch.zeros(count, 3, requires_grad=True), torch.Generator().manual_seed(seed())
    optimiser = torch.optim.SGD([logits], lr=2.0 * count)
    for _ in range(rounds):
        pulls = torch.multinomial(logits.detach().softmax(-1), 4, replacement=True, generator=stream)
        luck = (torch.rand(count, 4, generator=stream) < 0.6).float()
        rewards = currency * torch.where(pulls == 0, 0.5, torch.where(pulls == 1, luck, 0.0))
        advantages = normalise(rewards) if scaled else rewards - rewards.mean()
        gain = (advantages * logits.log_softmax(-1).gather(1, pulls)).mean() + weight * entropy(logits).mean()
        optimiser.zero_grad()
        (-gain).backward()
        optimiser.step()
    return (logits.argmax(-1) == 1).float().mean().item(), entropy(logits).mean().item()


# %%
ROUNDS = choose(smoke=20, cpu=300, gpu=300)
table = {}
for scaled in (False, True):
    for weight in (0.0, 0.1):
        row = {currency: gamblers(currency, weight, scaled, ROUNDS) for currency in (0.1, 1.0, 10.0)}
        table[scaled, weight] = row
        cells = ", ".join(f"{best:4.0%} (H {left:.2f})" for best, left in row.values())
        print(f"{'normalised' if scaled else 'raw       '} entropy weight {weight}: {cells}")

# %% [markdown]
# Read across. Raw, the same entropy weight rules all in small change and is nothing in big money: whoever changes the
# currency must tune again. Normalised, a row reads the same in all three. Read down the normalised rows: a little
# entropy wins back most of the gamblers who had dropped the good lever too early. In later chapters a reward may be a
# count, a percentage or the mark of a judge; the same two lines keep it in order.
#
# ### Turn the screws yourself
#
# The clip, the units and the entropy under your hand. Begin with the ratio of one action: push it past the clip, on
# both sides, for a good and for a bad advantage, and see where the slope is gone. Then leave the advantages raw, and
# see every action pushed up. (With its eight samples the explorer divides by $n - 1$, as most public code does.)

# %%
ClipExplorer(
    alt="An explorer of PPO's loss. The clipped objective against the ratio, with sliders for ratio, advantage and "
    "clip range; below, the advantages of a rollout, raw or normalised, and the entropy bonus, each with its share.",
    caption="All sliders answer to the arrow keys.",
)

# %% [markdown]
# ## 5. All of it, on the pole
#
# The whole of PPO is: play with many copies, judge with `gae`, and pass over the batch ten times in shuffled
# minibatches. `control.ppo` plays and shuffles. The step of the optimiser, where all the mathematics is, we write down
# here, from your functions. (The critic's target has become $A + V$, the blend of all horizons that $\lambda$ makes.
# Your `value_loss` is its case $\lambda = 0$.)


# %%
class YourPPO(ppo.PPO):
    """PPO whose step of the optimiser is made of your functions."""

    def improve(self, batch: dict[str, Tensor]) -> None:
        config, observations = self.config, batch["observations"]
        log_probs = self.policy.log_prob(observations, batch["actions"])
        actor = self.loss(log_probs, batch["log_probs"], normalise(batch["advantages"]), config.clip_range)
        critic = (self.critic(observations).squeeze(-1) - batch["returns"]).square().mean() / 2
        curiosity = entropy(self.policy.network(observations)).mean()
        self.optimizer.zero_grad()
        (actor + critic - config.entropy_weight * curiosity).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, config.most_norm)
        self.optimizer.step()


# %%
def balance(loss: Callable = clipped_surrogate, **changes) -> tuple[ppo.PPO, list[dict[str, float]]]:
    """Train on CartPole; the learner and its figures, an iteration a row."""
    settings = {"iterations": choose(smoke=2, cpu=60, gpu=60), "entropy_weight": 0.001, "normalise_advantages": False}
    config = replace(ppo.PPOConfig(), **(settings | changes))
    learner = YourPPO(control.make("CartPole-v1", config.copies), config, seed=seed(), loss=loss, estimator=gae)
    return learner, [learner.iteration() for _ in range(config.iterations)]


with timer() as cartpole_clock:
    yours, log = balance()
cartpole_after = control.evaluate(yours.policy.greedy, "CartPole-v1", episodes=EPISODES, seed=1000 + seed())
print(f"greedy return {cartpole_before.mean():.1f} -> {cartpole_after.mean():.1f} over {EPISODES} episodes, after "
      f"{log[-1]['steps']:,} steps in {cartpole_clock.seconds:.0f} s")  # fmt: skip

# %%
film(
    side_by_side([
        episode_frames(policy.greedy, "CartPole-v1", seed=seed(), every=4, most_steps=400)
        for policy in (novice, yours.policy)
    ]),
    alt=f"Two carts beside each other. The novice's pole falls at once and its picture stands still; on yours the pole "
    f"stays upright (mean return {cartpole_after.mean():.0f} of 500).",
    shrink=3,
)  # fmt: skip

# %% [markdown]
# Four dials tell how a run of PPO is doing. Learn to read them, for they are the same for a picture model.

# %%
dials = {
    "return": "return in training",
    "kl": "KL an iteration",
    "clip_fraction": "share clipped",
    "entropy": "entropy",
}
figure = Figure(figsize=(10, 2.6), layout="constrained")
for axis, (key, label) in zip(figure.subplots(1, 4), dials.items(), strict=True):
    axis.plot([row["steps"] for row in log], [row[key] for row in log], color=OTHERS[0])
    axis.set(title=label, xlabel="steps")
    axis.grid(alpha=0.25)
viz.picture(figure, alt="Four dials against steps: " + "; ".join(
    f"{label} from {log[0][key]:.2g} to {log[-1][key]:.2g}" for key, label in dials.items()) + ".")  # fmt: skip

# %% [markdown]
# What does each part buy? Take one out at a time: the clip; the many passes (then what is left is a plain
# actor-critic); the critic's blend ($\lambda = 1$, returns alone).

# %%
without = {
    "yours": log,
    "no clip": balance(promise)[1],
    "one pass a batch": balance(epochs=1)[1],
    "lam = 1": balance(lam=1.0)[1],
}
viz.curves(
    {name: ([row["steps"] for row in rows], [row["return"] for row in rows]) for name, rows in without.items()},
    levels={"the most there is": 500.0},
    xlabel="steps of the environment",
    ylabel="mean return of the last 100 episodes",
    alt="Return in training against steps, with a part taken out at a time. At the end: "
    + ", ".join(f"{name} {rows[-1]['return']:.0f}" for name, rows in without.items()) + ".",
)  # fmt: skip

# %% [markdown]
# Without the clip the actor climbs as fast, until an update goes too far and the next batches are played by somebody who
# falls. With one pass a batch nothing goes wrong and hardly anything happens: the same steps of the environment, a tenth
# of the steps of the optimiser. And without the critic's help ($\lambda = 1$) it gets there too, a little later. (One
# seed, so one anecdote; set `PIXELPOLICY_SEED` for others. The mean of the last 100 episodes lags behind the actor, who
# balances all 500 moments once it stops trying things out.)
#
# ## 6. Actions that are numbers
#
# A pendulum hangs down. A motor too weak to lift it must swing it up, by a torque between $-2$ and $2$. The torque is
# no choice among a few; it is a number. So let the actor draw it, from a Gaussian: the network says the mean, and one
# learnt number, `log_std`, says how wide. It is what a denoising step does: draw the next latent round a mean.

# %% [markdown] goal="4.6"
# A robot has many motors and a latent has thousands of numbers. They are drawn independently, so their densities
# multiply and their logarithms add:
#
# $$\log \pi(a|s) = \sum_j \Big[-\frac{(a_j - \mu_j)^2}{2\sigma_j^2} - \log\sigma_j - \tfrac12 \log 2\pi\Big],
# \qquad \sigma_j = e^{\texttt{log\_std}_j}.$$
#
# `actions` and `mean` are `[batch, size]`, `log_std` is `[size]`. Return one number an action.


# %% exercise={"id": "4.6", "name": "gaussian_log_prob", "title": "The density of an action", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def gaussian_log_prob(
    actions: Float[Tensor, "batch size"], mean: Float[Tensor, "batch size"], log_std: Float[Tensor, "size"]
) -> Float[Tensor, "batch"]:
    """Log-density of actions whose numbers are independent Gaussians."""
    ### BEGIN SOLUTION
    scaled = (actions - mean) / log_std.exp()
    return (-(scaled**2) / 2 - log_std - math.log(2 * math.pi) / 2).sum(-1)
    ### END SOLUTION


# %% [markdown] hints="4.6"
# <details><summary>Hint 1: three terms a number</summary>
#
# The squared gap in units of the deviation, the logarithm of the deviation, a constant. All three are there for each
# number of the action.
#
# </details>
# <details><summary>Hint 2: which deviation</summary>
#
# You are given its logarithm. That is the second term already; for the first, undo it.
#
# </details>
# <details><summary>Hint 3: sum or mean</summary>
#
# The formula sums over the numbers of an action, the last dimension. The batch stays.
#
# </details>

# %% check="4.6"
check("4.6", gaussian_log_prob)

# %% [markdown]
# In lab 12 you will meet the same density, *averaged* over the numbers: what is summed here is divided there by their
# count. Does it matter? Move the mean of an actor by a tenth of a deviation in every number, and look at the ratios of
# its own actions.

# %%
sizes, stream = [1, 4, 16, 64, 256], torch.Generator().manual_seed(seed())
outside = {"summed (the ratio)": [], "averaged over the numbers": []}
for size in sizes:
    drawn, zero = torch.randn(2000, size, generator=stream), torch.zeros(size)
    moved = gaussian_log_prob(drawn, (zero + 0.1).expand_as(drawn), zero)
    shift = moved - gaussian_log_prob(drawn, zero.expand_as(drawn), zero)
    for name, log_ratio in zip(outside, (shift, shift / size), strict=True):
        outside[name].append(((log_ratio.exp() - 1).abs() > 0.2).float().mean().item())
viz.curves(
    {name: ([math.log2(size) for size in sizes], shares) for name, shares in outside.items()},
    xlabel="numbers in an action (powers of two)",
    ylabel="share of ratios outside 1 ± 0.2",
    alt="Share of clipped ratios against the size of the action. Summed, it rises from "
    f"{outside['summed (the ratio)'][0]:.2f} to {outside['summed (the ratio)'][-1]:.2f}; averaged, it falls to 0.",
)

# %% [markdown]
# The same small move of every number: with one motor hardly a ratio is clipped, with 256 most are. Averaged, none is,
# and a clip range of 0.2 would never act. **A clip range means something only together with the size of the action.**
# This is why lab 12, which averages, clips at a few thousandths.
#
# Now the pendulum. Your density replaces that of the actor; your surrogate and your advantages train it. First the test
# of every codebase: before any update the replayed ratio must be 1.

# %%
ITERATIONS = choose(smoke=2, cpu=100, gpu=100)
swing = replace(
    ppo.PENDULUM, copies=32, minibatches=8, iterations=ITERATIONS, lam=0.9, observation_scale=(0.5, 0.5, 4.0)
)
learner = ppo.PPO(control.make("Pendulum-v1", swing.copies), swing, seed=seed(), loss=clipped_surrogate, estimator=gae)
actor = learner.policy
actor.log_prob = lambda observations, actions: gaussian_log_prob(actions, actor.network(observations), actor.log_std)
probe = control.Collector(control.make("Pendulum-v1", 4), seed=seed()).collect(actor.act, 50).flat()
with torch.no_grad():
    ratio = (actor.log_prob(probe["observations"], probe["actions"]) - probe["log_probs"]).exp()
print(f"replayed ratios before any update: {ratio.min():.6f} to {ratio.max():.6f}")
pendulum_before = control.evaluate(actor.greedy, "Pendulum-v1", episodes=EPISODES, seed=1000 + seed())

# %%
with timer() as pendulum_clock:
    swing_log = [learner.iteration() for _ in range(swing.iterations)]
pendulum_after = control.evaluate(actor.greedy, "Pendulum-v1", episodes=EPISODES, seed=1000 + seed())
print(f"greedy return {pendulum_before.mean():.0f} -> {pendulum_after.mean():.0f} over {EPISODES} episodes, after "
      f"{swing_log[-1]['steps']:,} steps in {pendulum_clock.seconds:.0f} s")  # fmt: skip
film(
    episode_frames(actor.greedy, "Pendulum-v1", seed=seed() + 4, every=2),
    alt="A pendulum swings from side to side, higher each time, reaches the top and stands there.",
    shrink=3,
)

# %% [markdown]
# A score of 0 would mean upright from the start; from hanging, the swings that build up height must be paid for. What
# has the actor learnt, and what does the critic believe? Both depend on two numbers, so we can see all of it.

# %%
angles, speeds = torch.linspace(-math.pi, math.pi, 121), torch.linspace(-8, 8, 101)
angle, speed = torch.meshgrid(angles, speeds, indexing="xy")
states = torch.stack([angle.cos(), angle.sin(), speed], -1).reshape(-1, 3)
with torch.no_grad():
    torque = actor.greedy(states).clamp(-2, 2).view(angle.shape)
    believed = (learner.critic(states) / swing.reward_scale).view(angle.shape)
walker = control.Collector(control.make("Pendulum-v1", 1), seed=seed() + 4)
lived = walker.collect(lambda o: (actor.greedy(o), torch.zeros(len(o))), 199).observations[:, 0]
path = torch.atan2(lived[:, 1], lived[:, 0]), lived[:, 2]

# %%
figure = Figure(figsize=(9, 3.4), layout="constrained")
maps = (("the actor's torque", torque, "PuOr"), ("the critic's value", believed, "cividis"))
for axis, (title, shown, colours) in zip(figure.subplots(1, 2), maps, strict=True):
    drawn = axis.pcolormesh(angles, speeds, shown, cmap=colours, shading="nearest")
    axis.plot(*path, ".", color="black", markersize=5)
    axis.plot(*path, ".", color="white", markersize=2)
    axis.set(title=title, xlabel="angle (0 is upright)", ylabel="speed")
    figure.colorbar(drawn, ax=axis)
viz.picture(figure, alt="Two maps over angle and speed, with one episode as dots that ends at the centre. The torque "
            "pushes along with the swing when hanging and brakes near the top; the value is highest at the "
            "centre, in a diagonal band that leads there.")  # fmt: skip

# %% [markdown]
# The band of high value in the right map is the way up: states from which the swing carries the pendulum to the top by
# itself. The critic found it from rewards alone.
#
# ## 7. The rival: a gradient through the action
#
# All of this treats the world's verdict as a bare number. If there is a *critic of actions*, $Q(s,a)$, which is a
# network, one may ask it more: in which direction should the action move? **DDPG** lets a deterministic actor climb its
# critic; **SAC** draws the action, as noise that is moved and stretched, $a = \mu + \sigma\varepsilon$, and climbs
# through it: the *reparameterised* or pathwise gradient. Both reuse old steps from a replay buffer, as DQN does. They
# get no lab of their own; the idea returns in lab 10, where the critic is a differentiable reward and the action a
# picture.

# %% [markdown] goal="4.7"
# *For the curious.* Write the loss whose descent climbs $\mathbb E_\varepsilon\,Q(\mu + \sigma\varepsilon)$ for one
# state. `mean` and `log_std` are `[size]`, `noise` is `[samples, size]`, and `critic` maps actions `[samples, size]` to
# values `[samples]`. No log-probability occurs in it.


# %% exercise={"id": "4.7", "name": "pathwise_loss", "title": "Through the action (for the curious)", "points": 2, "minutes": 8, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def pathwise_loss(
    mean: Float[Tensor, "size"],
    log_std: Float[Tensor, "size"],
    noise: Float[Tensor, "samples size"],
    critic: Callable[[Float[Tensor, "samples size"]], Float[Tensor, "samples"]],
) -> Float[Tensor, ""]:
    """A loss whose gradient runs through the critic and the action into the policy."""
    ### BEGIN SOLUTION
    actions = mean + log_std.exp() * noise
    return -critic(actions).mean()
    ### END SOLUTION


# %% [markdown] hints="4.7"
# <details><summary>Hint 1: build the action</summary>
#
# The noise has deviation 1 in every number. Stretch it, then move it.
#
# </details>
# <details><summary>Hint 2: let it flow</summary>
#
# The action must stay tied to mean and deviation: no detach, no `torch.no_grad`.
#
# </details>
# <details><summary>Hint 3: climb</summary>
#
# One call of the critic with all actions, its mean, and one minus.
#
# </details>

# %% check="4.7"
check("4.7", pathwise_loss)


# %% [markdown]
# The two gradients on the same question: a critic that is a bowl, $Q(a) = -\lVert a - 1\rVert^2$, and an actor at 0.
# The exact gradient in the mean is 2 in every number. How noisy is *one* sample's estimate, by each road? The
# score-function estimate even gets the best constant baseline, and your own density.


# %%
def bowl(actions: Tensor) -> Tensor:
    """Highest where every number is 1."""
    return -(actions - 1).square().sum(-1)


def noise_of(size: int, pathwise: bool, count: int) -> float:
    """Deviation of one sample's gradient, relative to the length of the exact gradient."""
    noise = torch.randn(count, size, generator=torch.Generator().manual_seed(seed()))
    means = torch.zeros(count, size, requires_grad=True)  # one mean a sample, so that gradients stay apart
    if pathwise:
        loss = sum(pathwise_loss(mean, torch.zeros(size), e[None], bowl) for mean, e in zip(means, noise, strict=True))
    else:
        weights = bowl(noise) - bowl(noise).mean()
        loss = -(weights * gaussian_log_prob(noise, means, torch.zeros(size))).sum()
    (gradients,) = torch.autograd.grad(-loss, means)
    return ((gradients - 2).square().sum(-1).mean().sqrt() / (2 * size**0.5)).item()


# %%
sizes = [1, 4, 16, 64, 256]
noisy = {name: [noise_of(size, name == "pathwise (SAC)", choose(smoke=50, cpu=1000, gpu=1000)) for size in sizes]
         for name in ("score function (PPO)", "pathwise (SAC)")}  # fmt: skip
viz.curves(
    {name: ([math.log2(size) for size in sizes], [math.log10(value) for value in row]) for name, row in noisy.items()},
    xlabel="numbers in an action (powers of two)",
    ylabel="noise of one sample (powers of ten)",
    alt="Relative noise of one sample's gradient against the size of the action: score function from "
    f"{noisy['score function (PPO)'][0]:.1f} up to {noisy['score function (PPO)'][-1]:.0f}; pathwise level at "
    f"{noisy['pathwise (SAC)'][-1]:.1f}.",
)


# %%
def verdict(actions: Tensor) -> Tensor:
    """A judge who says yes or no: 1 above a half, 0 below, and no slope anywhere."""
    return (actions[:, 0] > 0.5).float() + 0 * actions[:, 0]


mean, still = torch.zeros(1, requires_grad=True), torch.zeros(1)
noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(seed()))
weighed = verdict(noise) * gaussian_log_prob(noise, mean.expand_as(noise), still)
around = torch.autograd.grad(weighed.mean(), mean)[0].item()
through = torch.autograd.grad(-pathwise_loss(mean, still, noise, verdict), mean)[0].item()
exact = math.exp(-0.125) / math.sqrt(2 * math.pi)
print(f"a verdict of yes or no: exact gradient {exact:.3f}, score function {around:.3f}, pathwise {through:.3f}")

# %% [markdown]
# Pathwise is better by far, and the more so the larger the action: each sample knows a direction, not only a number.
# But it knows only what the critic's slope says. Given a judge who answers yes or no, it learns nothing, and given a
# learnt critic it climbs that critic's mistakes as well. Score functions need no slope. That is the trade between the
# methods of lab 10 and those of labs 09 and 12.
#
# ## 8. The same parts in a generator
#
# | here | in a generator that draws pictures |
# |---|---|
# | state: angle and speed | the latent, its noise level, the prompt |
# | action: a torque from a Gaussian | the next latent, from a Gaussian |
# | `gaussian_log_prob`, summed | the same, averaged over the latent's numbers |
# | critic: what to expect from a state | the mean reward of a group of attempts at the same prompt |
# | `gae`: errors along time | one verdict at the end, the same for all steps |
# | `normalise` over the batch | `group_advantages`: over each group |
# | `clipped_surrogate` | **the same function**, in labs 09 and 12 |
# | entropy keeps the actor curious | a KL to the base keeps the pictures sane |
#
# ## What to take away
#
# - A critic turns "what followed?" into "better than expected?". Out of time is not over.
# - $\lambda$ trades the critic's error against the noise of returns; more data, higher $\lambda$.
# - A batch knows what is nearby. The clip takes away the reward for going further.
# - Normalise advantages, and weights mean the same in every currency.
# - A clip range belongs to the size of the action.
# - Through the critic is less noisy; around it needs no slope.
#
# The cell below writes down what happened here.

# %%
record = write_record(
    "04-ppo",
    {
        "cartpole_greedy_return": {"before": cartpole_before.mean().item(), "after": cartpole_after.mean().item()},
        "pendulum_greedy_return": {"before": pendulum_before.mean().item(), "after": pendulum_after.mean().item()},
        "cartpole_seconds": cartpole_clock.seconds,
        "pendulum_seconds": pendulum_clock.seconds,
        "cartpole_steps": log[-1]["steps"],
        "pendulum_steps": swing_log[-1]["steps"],
        "cartpole_training_return": {name: rows[-1]["return"] for name, rows in without.items()},
        "one_batch_returns": {"before": start} | {name: sum(ends) / len(ends) for name, ends in endings.items()},
        "value_of_the_room": {name: history[-1] for name, history in rooms.items()},
        "best_lam_for_walks": {str(n): lam for n, lam in best_lam.items()},
        "share_outside_clip": {name: dict(zip(map(str, sizes), row, strict=True)) for name, row in outside.items()},
        "gradient_noise": {name: dict(zip(map(str, sizes), row, strict=True)) for name, row in noisy.items()},
    },
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/04.json")
