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
# # Lab 01: what is a place worth?
#
# You stand on a frozen lake. In the far corner lies a prize, and there are holes. The ice is slippery: of three steps
# that you mean to take, two go astray to the side. *Which way should you set out, from every place, and what is it
# worth to stand there?*
#
# Here you know everything: every place, every move, every chance. Finding the best behaviour from complete knowledge
# is called **planning**, and it is where reinforcement learning comes from. In seven short functions you build the
# table of a world, work out what each place is worth, and find the best thing to do. At the end your functions plan
# for a (very small) generator of pictures, and you see why nobody can plan for a large one. Chapter 01 is the text
# beside this lab.
#
# Seven exercises, about 80 minutes; the seventh is for the curious. Nothing here needs a graphics card: the profile
# `gpu` does what `cpu` does.

# %%
import math
import random

import gymnasium
import torch
from IPython.display import Markdown, display
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

# %%
from pixelpolicy import viz
from pixelpolicy.control import Gridworld
from pixelpolicy.control.planning import MDP, mdp_of, solve
from pixelpolicy.course import check
from pixelpolicy.course.results import start_timer, write_record
from pixelpolicy.profiles import choose, seed
from pixelpolicy.rl.oracles import chain_distribution, tilted
from pixelpolicy.viz.figures import OTHERS
from pixelpolicy.widgets.gridworld import GridworldEditor

# %% [markdown]
# ## 1. A walk on the ice
#
# `FrozenLake` is a small game of the library Gymnasium. Someone who knows nothing plays it: every step in a random
# direction.

# %%
lab_clock = start_timer()
torch.set_num_threads(1)
dice = random.Random(4)
frames = viz.episode_frames(lambda _: [dice.randrange(4)], "FrozenLake-v1", seed=4)
viz.film(
    frames,
    fps=3,
    shrink=2,
    alt=f"A lake of four by four cells with four holes. A figure starts at the top left, where the ice is safe, and "
    f"wanders about at random for {len(frames) - 1} steps, until the episode ends.",
)

# %% [markdown]
# The words for what you saw:
#
# | word | here | later, for a generator of pictures |
# |---|---|---|
# | **state** $s$ | the cell you stand on, 0 to 15, row by row | a noisy picture, half done |
# | **action** $a$ | 0 left, 1 down, 2 right, 3 up | the next, less noisy picture |
# | **transition** $p(s' \mid s, a)$ | the chance to land on cell $s'$ | none: the action *is* the next state |
# | **reward** $r$ | 1 on reaching the prize, else 0 | a verdict on the finished picture |
# | **terminal** state | a hole, or the prize: the episode is over | the finished picture |
# | **policy** $\pi(a \mid s)$ | how often to take which action, in each cell | the network |
#
# What comes next depends on the present cell alone, not on how you came there. A game of this kind is called a
# **Markov decision process**, or MDP. A policy is a table of probabilities, a row for each state. Let us play many
# episodes by a policy, with Gymnasium's own dice. (Gymnasium ends an episode after 100 steps. With such a clock the
# cell would not be the whole state, so we give it far more time than anybody needs.)


# %%
def play(env: gymnasium.Env, policy: Float[Tensor, "states actions"], count: int) -> list[tuple[list[int], Tensor]]:
    """Episodes by a policy: for each, the states it went through and the rewards it earned."""
    dice, rows, episodes = random.Random(seed()), policy.tolist(), []
    env.reset(seed=seed())
    for _ in range(count):
        state, over, states, rewards = env.reset()[0], False, [], []
        while not over:
            states.append(state)
            action = dice.choices(range(4), rows[state])[0]
            state, reward, terminated, truncated, _ = env.step(action)
            rewards.append(reward)
            over = terminated or truncated
        episodes.append((states, torch.tensor(rewards, dtype=torch.float64)))
    return episodes


# %%
WALKS = choose(smoke=200, cpu=4000, gpu=4000)
env = gymnasium.make("FrozenLake-v1", map_name="4x4", max_episode_steps=5000)
anyhow = torch.full((16, 4), 0.25, dtype=torch.float64)
walks = play(env, anyhow, WALKS)
counts = torch.bincount(torch.tensor([state for states, _ in walks for state in states]), minlength=16)
found = sum(rewards.sum().item() for _, rewards in walks)
print(f"{WALKS} walks, {found:.0f} of them reached the prize; the longest took {max(len(s) for s, _ in walks)} steps")
MARKS = dict.fromkeys([(1, 1), (1, 3), (2, 3), (3, 0)], "hole") | {(3, 3): "prize"}
viz.grids(
    {"visits a walk": (counts / WALKS).view(4, 4)},
    marks=MARKS,
    alt="How often a random walk stands on each cell: most at the start, at the top left, and hardly ever near the "
    "prize, at the bottom right.",
)

# %% [markdown] goal="1.1"
# How good was a walk? Its **return** adds up what it earned. A reward that comes later counts less: each step of
# waiting multiplies it by the **discount** $\gamma$, a number from 0 (only the next reward counts) to 1 (all count
# alike). For the rewards $r_0, r_1, \dots$ of one episode,
#
# $$G = r_0 + \gamma r_1 + \gamma^2 r_2 + \dots = \sum_t \gamma^t\, r_t .$$


# %% exercise={"id": "1.1", "name": "discounted_return", "title": "What an episode earned", "points": 1, "minutes": 5, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def discounted_return(rewards: Float[Tensor, "steps"], discount: float) -> Float[Tensor, ""]:
    """The discounted sum of the rewards of one episode, the first reward undiscounted."""
    ### BEGIN SOLUTION
    return (discount ** torch.arange(len(rewards)) * rewards).sum()
    ### END SOLUTION


# %% [markdown] hints="1.1"
# <details><summary>Hint 1: which power</summary>
#
# The first reward is r_0 and counts in full. Any number to the power 0 is 1, also 0 ** 0.
#
# </details>
# <details><summary>Hint 2: all weights at once</summary>
#
# `torch.arange(n)` counts from 0 to n - 1. A number to the power of a tensor is a tensor of powers.
#
# </details>
# <details><summary>Hint 3: or from behind</summary>
#
# A loop from the last reward to the first works as well: the return from a step on is its reward plus the discount
# times the return after it. Remember this sentence: it is section 3.
#
# </details>

# %% check="1.1"
check("1.1", discounted_return)

# %% [markdown]
# Your function judges the walks. What random behaviour is worth *at the start* is the mean return: an experiment with
# 4,000 walks (in the profile `cpu`), and it still has a sizeable error.

# %%
DISCOUNT = 0.95
returns = torch.stack([discounted_return(rewards, DISCOUNT) for _, rewards in walks])
by_walking, error = returns.mean().item(), (returns.std() / WALKS**0.5).item()
print(f"random behaviour from the start is worth {by_walking:.5f}, give or take {error:.5f}")

# %% [markdown]
# ## 2. The table
#
# Walking is what you do when you do not know the world. We do. Gymnasium keeps it as a table: for a cell and an action,
# every outcome as *(chance, next cell, reward, is it over?)*. Cell 14 is left of the prize; from there, to the right:

# %%
for outcome in env.unwrapped.P[14][2]:
    print(outcome)

# %% [markdown]
# You go right as meant, or slip to one of the two *sides* of that direction, down or up. At the edge of the lake, down
# means: you stay where you are.

# %% [markdown] goal="1.2"
# Write one row of such a table. `landing[k]` is the cell in which a clean move in direction `k` ends (0 left, 1 down,
# 2 right, 3 up; at an edge it is the cell itself). The move goes as meant with probability `1 - slip`, and to each of
# its two sides with half of `slip`. The sides of direction `a` are `a - 1` and `a + 1`, counted round the circle of
# four. Return the chance of each of the `states` cells. Two directions may end in *the same* cell.


# %% exercise={"id": "1.2", "name": "move_chances", "title": "One row of the table", "points": 2, "minutes": 10, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def move_chances(landing: Int[Tensor, "4"], action: int, slip: float, states: int) -> Float[Tensor, "states"]:
    """The chance of each next state, after an action that may slip to its sides."""
    ### BEGIN SOLUTION
    chances = torch.zeros(states, dtype=torch.float64)
    chances[landing[action]] += 1 - slip
    chances[landing[(action - 1) % 4]] += slip / 2
    chances[landing[(action + 1) % 4]] += slip / 2
    return chances
    ### END SOLUTION


# %% [markdown] hints="1.2"
# <details><summary>Hint 1: the plan</summary>
#
# Begin with `torch.zeros(states, dtype=torch.float64)`. Three outcomes are possible; give each its chance.
#
# </details>
# <details><summary>Hint 2: the circle</summary>
#
# `% 4` counts round: the sides of 3 (up) are 2 (right) and 0 (left).
#
# </details>
# <details><summary>Hint 3: in a corner</summary>
#
# In the top left corner, left and up both end where you stand. So add each chance to what is there already, with
# `+=`: a plain `=` would overwrite it, and the row would no longer add up to 1.
#
# </details>

# %% check="1.2"
check("1.2", move_chances)


# %% [markdown]
# With your rows, the table of any world of cells: `transitions[s, a, s']` and the expected `rewards[s, a]`. A terminal
# state never leaves itself and earns nothing. The lake is such a world, with a prize of 1, and holes as prizes of 0.


# %%
def table_of(world: Gridworld) -> MDP:
    """The table of a world of cells, row by row by your function."""
    states = world.width * world.height
    prize, terminal = torch.zeros(states, dtype=torch.float64), torch.zeros(states, dtype=torch.bool)
    transitions = torch.zeros(states, 4, states, dtype=torch.float64)
    for cell in world.cells():
        state = world.state(cell)
        prize[state] = world.prizes.get(cell, 0.0)
        terminal[state] = cell in world.prizes or cell in world.walls
        landing = torch.tensor([world.state(world.after(cell, move)) for move in range(4)])
        for action in range(4):
            transitions[state, action] = move_chances(landing, action, world.slip, states)
    return MDP(transitions, transitions @ prize, terminal)  # MDP makes terminal states stand still, for nothing


# %%
def lake(name: str, slip: float = 2 / 3) -> Gridworld:
    """One of Gymnasium's lakes as a world of cells."""
    drawing = gymnasium.make("FrozenLake-v1", map_name=name).unwrapped.desc
    ends = {(int(r), int(c)): float(drawing[r, c] == b"G") for r, c in zip(*(drawing != b"F").nonzero(), strict=True)}
    ends.pop((0, 0))  # the start is ordinary ice
    return Gridworld([], ends, slip, width=drawing.shape[1], height=drawing.shape[0])


small, large = table_of(lake("4x4")), table_of(lake("8x8"))
for name, table in {"4x4": small, "8x8": large}.items():
    theirs = mdp_of(gymnasium.make("FrozenLake-v1", map_name=name))
    gap = max((table.transitions - theirs.transitions).abs().max(), (table.rewards - theirs.rewards).abs().max())
    print(f"{name}: {table.transitions.numel()} chances; largest difference from Gymnasium's table {gap:.1e}")
    assert gap < 1e-12

# %% [markdown]
# ## 3. One step ahead
#
# The **value** $v^\pi(s)$ of a state is the expected return from there on, if you behave by the policy $\pi$. Forget
# walking. A return is *the next reward, plus the discount times the return after it*. Take the expectation of this
# sentence and you have **Bellman's equation**:
#
# $$q(s, a) = r(s, a) + \gamma \sum_{s'} p(s' \mid s, a)\, v(s'), \qquad
# v^\pi(s) = \sum_a \pi(a \mid s)\, q(s, a).$$
#
# The **action value** $q(s, a)$ looks one step ahead: take action $a$ once, and be worth $v$ wherever you land.

# %% [markdown] goal="1.3"
# Compute all action values from the table and the values of the states, whatever these are.


# %% exercise={"id": "1.3", "name": "action_values", "title": "Look one step ahead", "points": 2, "minutes": 10, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def action_values(
    transitions: Float[Tensor, "states actions states"],
    rewards: Float[Tensor, "states actions"],
    values: Float[Tensor, "states"],
    discount: float,
) -> Float[Tensor, "states actions"]:
    """The reward of each action, plus the discounted value of where it leads on average."""
    ### BEGIN SOLUTION
    return rewards + discount * transitions @ values
    ### END SOLUTION


# %% [markdown] hints="1.3"
# <details><summary>Hint 1: which sum</summary>
#
# The sum runs over the next state, which is the *last* dimension of the table.
#
# </details>
# <details><summary>Hint 2: no loop</summary>
#
# `table @ vector` multiplies along the last dimension of the table and adds up.
#
# </details>
# <details><summary>Hint 3: what waits</summary>
#
# The reward is earned now, the value of the next state one step later. Only one of the two is discounted.
#
# </details>

# %% check="1.3"
check("1.3", action_values)

# %% [markdown]
# Now a small miracle. Begin with values that are plainly wrong: 0 everywhere. Look one step ahead by your function,
# average over the policy, and call the outcome the new values. Then again. Each round is a **sweep**. First for a walk
# in random directions:

# %%
values, stages = torch.zeros(16, dtype=torch.float64), {}
for sweep in range(1, 65):
    values = (anyhow * action_values(small.transitions, small.rewards, values, DISCOUNT)).sum(-1)
    if sweep in (1, 2, 3, 4, 8, 16, 32, 64):
        stages[f"after {sweep} sweep{'s' * (sweep > 1)}"] = values.view(4, 4)
viz.grids(
    stages,
    marks=MARKS,
    limits=(0, 0.2),
    alt="Values after 1, 2, 3, 4, 8, 16, 32 and 64 sweeps. First only the cell next to the prize is worth something; "
    "with each sweep the worth spreads by one cell, and between 32 and 64 sweeps hardly anything changes.",
)

# %% [markdown]
# The prize tells its neighbours, and they tell theirs: worth spreads backwards, one cell a sweep. And it *settles*.
#
# ## 4. What a policy is worth
#
# Why does it settle? Let $\delta$ be the largest error of the old values. The reward in Bellman's equation has no
# error, the average over next states has at most $\delta$, and the discount shrinks it: the new values are wrong by at
# most $\gamma\delta$. So every sweep shrinks the error by the factor $\gamma$ at least, wherever you begin.
#
# The same argument says when to stop. If a sweep changed no value by more than $c$, then all that would still change,
# in all sweeps to come, is at most $\gamma c + \gamma^2 c + \dots = \dfrac{\gamma}{1 - \gamma}\,c$.

# %% [markdown] goal="1.4"
# Sweep from 0 until the values are *surely* within `tolerance` of the truth, in every state. The discount is below 1;
# it may be 0.


# %% exercise={"id": "1.4", "name": "evaluate_policy", "title": "Evaluate a policy", "points": 3, "minutes": 15, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def evaluate_policy(
    transitions: Float[Tensor, "states actions states"],
    rewards: Float[Tensor, "states actions"],
    policy: Float[Tensor, "states actions"],
    discount: float,
    tolerance: float,
) -> Float[Tensor, "states"]:
    """The values of a policy, each within the tolerance of the truth."""
    ### BEGIN SOLUTION
    values = torch.zeros_like(rewards[:, 0])
    while True:
        new = (policy * (rewards + discount * transitions @ values)).sum(-1)
        change = (new - values).abs().max()
        values = new
        if discount * change <= (1 - discount) * tolerance:
            return values
    ### END SOLUTION


# %% [markdown] hints="1.4"
# <details><summary>Hint 1: you have it already</summary>
#
# The loop in the cell before section 4 is a sweep. What it lacks is a reason to stop.
#
# </details>
# <details><summary>Hint 2: the change</summary>
#
# Keep the old values beside the new ones. The change is the largest *absolute* difference, over all states.
#
# </details>
# <details><summary>Hint 3: the rule</summary>
#
# Stop once discount / (1 - discount) times the change is at most the tolerance. "The change is below the tolerance"
# is not enough: at discount 0.99 the values may still be wrong by 99 times as much.
#
# </details>

# %% check="1.4"
check("1.4", evaluate_policy)

# %% [markdown]
# For a fixed policy Bellman's equation is linear in the unknown values: $v = r^\pi + \gamma P^\pi v$. So there is
# another way, without any sweep: $(I - \gamma P^\pi)\, v = r^\pi$ is a system of linear equations. It is how we hold
# your function to the truth. And the walkers of section 1 measured one of these numbers.

# %%
values = evaluate_policy(small.transitions, small.rewards, anyhow, DISCOUNT, 1e-9)
exact = solve(small, anyhow, DISCOUNT)
print(f"worth of the start: {values[0]:.9f} by your sweeps, {exact[0]:.9f} by the linear solve,")
print(f"                    {by_walking:.5f} by walking, give or take {error:.5f}")
assert abs(by_walking - exact[0].item()) < 4 * max(error, 0.003)

# %%
DISCOUNTS = choose(smoke=(0.5, 0.95), cpu=(0.0, 0.5, 0.9, 0.95, 0.99), gpu=(0.0, 0.5, 0.9, 0.95, 0.99))


def random_table(number: int, states: int = 20, actions: int = 4) -> MDP:
    """A world without any geometry: random chances, rewards of either sign, and no end."""
    stream = torch.Generator().manual_seed(1000 * seed() + number)
    chances = torch.rand(states, actions, states, generator=stream, dtype=torch.float64) ** 8
    rewards = torch.randn(states, actions, generator=stream, dtype=torch.float64)
    return MDP(chances / chances.sum(-1, keepdim=True), rewards, torch.zeros(states, dtype=torch.bool))


def random_policy(table: MDP) -> Tensor:
    """A policy at random."""
    stream = torch.Generator().manual_seed(seed())
    return torch.randn(table.states, table.actions, generator=stream, dtype=torch.float64).softmax(-1)


# %%
without_map = [random_table(number) for number in range(choose(smoke=2, cpu=10, gpu=10))]
worlds = {"FrozenLake 4x4": [small], "FrozenLake 8x8": [large], "random tables": without_map}
evaluation_error = {}
for name, tables in worlds.items():
    gaps = []
    for table in tables:
        for policy in (table.uniform(), random_policy(table)):
            for discount in DISCOUNTS:
                found = evaluate_policy(table.transitions, table.rewards, policy, discount, 1e-9)
                gaps.append((found - solve(table, policy, discount)).abs().max().item())
    evaluation_error[name] = max(gaps)
    print(f"{name:15} {len(gaps):3d} evaluations, largest error against the linear solve {max(gaps):.1e}")
    assert max(gaps) <= 1e-8

# %% [markdown]
# A linear solve needs time that grows with the *cube* of the number of states; a sweep looks at each transition once.
# And sweeps survive what comes later: in lab 02 you will not know the chances, and still look one step ahead.
#
# ## 5. A better policy
#
# Random walking is worth almost nothing. But its values know something: look one step ahead, and in each state take
# the action with the highest $q$. To behave like that *once* and then walk at random is at least as good as to walk at
# random from the beginning. And if it is good once, it is good every time. This is the **policy improvement theorem**:
# the greedy policy on the values of a policy is never worse, in any state.

# %% [markdown] goal="1.5"
# From action values make the greedy policy, as a table of probabilities. Actions within `tie` of the best one are
# equally good: let them share the probability evenly. (Rounding makes equal values differ in the last digits. What
# compares them exactly will choose by chance.)


# %% exercise={"id": "1.5", "name": "greedy_policy", "title": "Be greedy", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def greedy_policy(q: Float[Tensor, "states actions"], tie: float) -> Float[Tensor, "states actions"]:
    """In each state the best action; those within `tie` of it share evenly."""
    ### BEGIN SOLUTION
    best = (q >= q.max(-1, keepdim=True).values - tie).double()
    return best / best.sum(-1, keepdim=True)
    ### END SOLUTION


# %% [markdown] hints="1.5"
# <details><summary>Hint 1: a mask</summary>
#
# First the best value of each state, then: which actions come within `tie` of it?
#
# </details>
# <details><summary>Hint 2: shapes</summary>
#
# `q.max(-1, keepdim=True).values` keeps the dimension of the actions, so that it can be compared with `q`.
#
# </details>
# <details><summary>Hint 3: share</summary>
#
# Turn the mask into numbers with `.double()`. A row with two ones must become two halves: divide by the sum of the
# row.
#
# </details>

# %% check="1.5"
check("1.5", greedy_policy)

# %% [markdown]
# Evaluate, be greedy, evaluate, be greedy, until nothing changes: **policy iteration**, by Howard (1960). Each round
# is your two functions. The lakes are too easy for it, so here is another world: a small prize on the left, a large
# one on the right, two pits, and ground that slips one time in ten.

# %%
WORLD = Gridworld(
    walls=[(1, 3), (1, 4), (1, 5), (3, 3), (3, 4)],
    prizes={(2, 0): 1.0, (2, 8): 4.0, (0, 5): -2.0, (3, 6): -2.0},
    slip=0.1,
    width=9,
    height=4,
)
world = table_of(WORLD)
PRIZES = {cell: f"{prize:+g}" for cell, prize in WORLD.prizes.items()}


def arrows(table: MDP, values: Tensor, shape: tuple[int, int], discount: float = DISCOUNT) -> Tensor:
    """Which actions are greedy in each cell, as viz.grids wants them; none in terminal states."""
    best = greedy_policy(action_values(table.transitions, table.rewards, values, discount), 1e-8) > 0
    return (best & ~table.terminal[:, None]).view(*shape, 4)


# %%
policy, rounds, pointing = world.uniform(), {}, {}
while True:
    values = evaluate_policy(world.transitions, world.rewards, policy, DISCOUNT, 1e-10)
    better = greedy_policy(action_values(world.transitions, world.rewards, values, DISCOUNT), 1e-8)
    name = f"round {len(rounds) + 1}: mean value {values[~world.terminal].mean():.3f}"
    rounds[name], pointing[name] = values.view(4, 9), arrows(world, values, (4, 9))
    if torch.equal(better, policy):
        break
    policy = better
viz.grids(
    rounds,
    arrows=pointing,
    marks=PRIZES,
    walls=WORLD.walls,
    columns=3,
    size=3.2,
    digits=0,
    alt=f"Policy iteration, {len(rounds)} panels of values with arrows for what is greedy on them. In the first nearly "
    "everything is dark, with round after round more cells are bright, and the arrows come to lead to the large prize.",
)

# %% [markdown]
# There are $4^{27}$ ways to choose an action in each of 27 cells, far more than anyone can try. It took a handful of
# rounds to find a best one. The first policies settle for the small prize; with each round the news of the large one
# has travelled further.
#
# ## 6. The best values, directly
#
# Why finish evaluating a policy that you are about to leave? Be greedy in *every* sweep. That is **value iteration**,
# and its fixed point is Bellman's **optimality equation**:
#
# $$v^*(s) = \max_a \Big( r(s, a) + \gamma \sum_{s'} p(s' \mid s, a)\, v^*(s') \Big).$$
#
# The largest of several numbers moves by no more than the numbers do. So a sweep still shrinks the error by $\gamma$,
# and the rule for stopping stays as it was.

# %% [markdown] goal="1.6"
# Sweep from 0 by the optimality equation until the values are within `tolerance` of $v^*$.


# %% exercise={"id": "1.6", "name": "value_iteration", "title": "The best values", "points": 3, "minutes": 15, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def value_iteration(
    transitions: Float[Tensor, "states actions states"],
    rewards: Float[Tensor, "states actions"],
    discount: float,
    tolerance: float,
) -> Float[Tensor, "states"]:
    """The values of the best policy, each within the tolerance of the truth."""
    ### BEGIN SOLUTION
    values = torch.zeros_like(rewards[:, 0])
    while True:
        new = (rewards + discount * transitions @ values).max(-1).values
        change = (new - values).abs().max()
        values = new
        if discount * change <= (1 - discount) * tolerance:
            return values
    ### END SOLUTION


# %% [markdown] hints="1.6"
# <details><summary>Hint 1: one word</summary>
#
# Take your `evaluate_policy` and change one line: no policy averages any more.
#
# </details>
# <details><summary>Hint 2: the order</summary>
#
# First the average over where an action may lead, then the best action. You choose the action; the ice chooses where
# you slip.
#
# </details>
# <details><summary>Hint 3: a trap of torch</summary>
#
# `q.max(-1)` returns a pair, the values and their places. You want `.values`.
#
# </details>

# %% check="1.6"
check("1.6", value_iteration)

# %% [markdown]
# Does it find the truth? The optimum is the value of the best policy; so make the greedy policy and solve *its* linear
# equations. If the two agree, you have both the best values and a policy that earns them.

# %%
planning_error = {}
for name, tables in worlds.items():
    gaps = []
    for table in tables:
        for discount in DISCOUNTS:
            found = value_iteration(table.transitions, table.rewards, discount, 1e-9)
            best = greedy_policy(action_values(table.transitions, table.rewards, found, discount), 1e-9)
            gaps.append((found - solve(table, best, discount)).abs().max().item())
    planning_error[name] = max(gaps)
    print(f"{name:15} {len(gaps):2d} plans, largest error against the linear solve {max(gaps):.1e}")
    assert max(gaps) <= 1e-8

# %% [markdown]
# How fast? Here is the true error after each sweep, on the large lake, beside what the discount promises.

# %%
figure = Figure(figsize=(6.4, 3.4))
axis = figure.subplots()
for colour, discount in zip(OTHERS, (0.8, 0.95, 0.99), strict=False):
    best = value_iteration(large.transitions, large.rewards, discount, 1e-12)
    values, errors = torch.zeros(64, dtype=torch.float64), []
    for _ in range(300):
        errors.append((values - best).abs().max().item())
        values = action_values(large.transitions, large.rewards, values, discount).max(-1).values
    axis.semilogy(errors, color=colour, label=f"discount {discount}")
    axis.semilogy([errors[0] * discount**k for k in range(300)], "--", color=colour, linewidth=1)
axis.set(xlabel="sweep", ylabel="largest error", ylim=(1e-10, 2))
axis.legend(frameon=False, fontsize=8)
viz.picture(figure, alt="The error of value iteration against the number of sweeps, on a logarithmic axis, for three "
            "discounts: straight falling lines, the nearer the discount is to 1 the flatter; each lies below its "
            "dashed bound.")  # fmt: skip

# %% [markdown]
# Now let your plan play, in Gymnasium, beside random walking and beside the *direct* way: always right or down,
# towards the prize, and never into a hole if only the ice were dry. A plan for a slippery world is not a route. It has
# an answer wherever the ice may take you.

# %%
PLAYS = choose(smoke=100, cpu=1000, gpu=1000)
success, lengths = {}, {}
for name, table in {"4x4": small, "8x8": large}.items():
    there = gymnasium.make("FrozenLake-v1", map_name=name, max_episode_steps=5000)
    q = {"random": torch.zeros(table.states, 4)}
    dry = table_of(lake(name, slip=0.0))  # the same lake without the ice
    for kind, known in {"plan for dry ground": dry, "plan for ice": table}.items():
        values = value_iteration(known.transitions, known.rewards, 0.99, 1e-9)
        q[kind] = action_values(known.transitions, known.rewards, values, 0.99)
    played = {kind: play(there, greedy_policy(one, 1e-8), PLAYS) for kind, one in q.items()}
    success[name] = {kind: sum(r.sum().item() for _, r in games) / PLAYS for kind, games in played.items()}
    lengths[name] = {kind: sum(len(s) for s, _ in games) / PLAYS for kind, games in played.items()}

# %%
lines = ["| lake | behaviour | reached the prize | steps, mean |", "|---|---|---|---|"]
for name, kinds in success.items():
    lines += [f"| {name} | {kind} | {share:.1%} | {lengths[name][kind]:.0f} |" for kind, share in kinds.items()]
Markdown("\n".join(lines))

# %% [markdown]
# Patience pays. The plan for ice takes its time, and falls in far less often. Here it is:

# %%
plans, pointing = {}, {}
for name, table in {"4x4": small, "8x8": large}.items():
    shape, values = (int(name[0]), int(name[0])), value_iteration(table.transitions, table.rewards, 0.99, 1e-9)
    plans[name] = viz.grids(
        {f"lake {name}, discount 0.99": values.view(shape)},
        arrows={f"lake {name}, discount 0.99": arrows(table, values, shape, 0.99)},
        size=2.8 if name == "4x4" else 4.5,
        alt=f"Best values and actions on the lake of {name}: the nearer to the prize the brighter; beside holes the "
        "arrows point away from them, often into the edge of the lake.",
    )
plans["4x4"]

# %%
plans["8x8"]

# %% [markdown]
# Cells of 0.00 are holes, and the prize. Beside a hole the arrows point *away* from it, often straight into the edge of
# the lake. On ice like this it pays to walk against a wall, where you can only slip along it.
#
# ### How far do you see?
#
# A reward $k$ steps away counts $\gamma^k$. So $\gamma$ says how far ahead a plan looks: about $1/(1-\gamma)$ steps.
# Three discounts, three plans for the world of the two prizes:

# %%
plans, pointing = {}, {}
for discount in (0.5, 0.8, 0.95):
    values = value_iteration(world.transitions, world.rewards, discount, 1e-10)
    name = f"discount {discount}"
    plans[name], pointing[name] = values.view(4, 9), arrows(world, values, (4, 9), discount)
viz.grids(plans, arrows=pointing, marks=PRIZES, walls=WORLD.walls, columns=1, size=6.2,
          alt="One world, three discounts. With 0.5 the arrows of the left half lead to the small prize at the left "
          "edge; with 0.8 fewer do; with 0.95 nearly all arrows lead to the large prize at the right.")  # fmt: skip

# %% [markdown]
# ## 7. Your own world
#
# Below, the same world is yours to change: walls, prizes, slip and discount, by mouse or by keys. Values and arrows
# follow at once. Predict first, then try:
#
# 1. Find the discount at which the cell beside the small prize changes its mind.
# 2. Raise the slip. Which cells near a pit begin to walk against a wall? What does a plan do when everything slips?
# 3. Wall in a few cells. What are they worth, and why do all four arrows show there?
# 4. Turn every prize negative. What is the best plan in a world where nothing can be won and waiting is free?

# %%
editor = GridworldEditor(
    WORLD,
    discount=0.8,
    alt="A world of four by nine cells, with the value of each cell and its best moves: a small prize at the left "
    "edge, a large one at the right edge, two pits, and walls between them. All of it can be changed.",
)
display(editor)

# %% [markdown]
# Run this cell after every change: *your* functions plan for *your* world, and they should show what the editor shows.

# %%
mine, yours = table_of(editor.grid), editor.grid
discount = min(editor.discount, 0.999)  # with 1 your rule would never stop
values = value_iteration(mine.transitions, mine.rewards, discount, 1e-9)
viz.grids(
    {f"discount {discount:g}, slip {yours.slip:g}": values.view(yours.height, yours.width)},
    arrows={f"discount {discount:g}, slip {yours.slip:g}": arrows(mine, values, (yours.height, yours.width), discount)},
    marks={cell: f"{prize:+g}" for cell, prize in yours.prizes.items()},
    walls=yours.walls,
    size=6.2,
    alt="The world of the editor, with the values and the best moves that your own function finds.",
)

# %% [markdown]
# ## 8. A generator is such a world
#
# Here is the smallest generator of pictures there is. A picture is one pixel with nine shades of grey. It begins at
# mid grey and takes four steps; a table of probabilities, the *base*, says how likely each next shade is. The last
# shade is the picture. Read it as a decision process: the state is (step, shade), the action is the next shade, and it is
# obeyed without slipping. Whoever likes white gives a reward of 1 for it at the end.

# %%
SHADES, STEPS = 9, 4
shades = torch.linspace(-1, 1, SHADES, dtype=torch.float64).roll(-4)  # shade 0 is mid grey
spread = torch.tensor([0.7, 0.5, 0.3, 0.2], dtype=torch.float64)
logits = -((shades - (1.5 * shades[:, None]).clamp(-1, 1)) ** 2) / (2 * spread[:, None, None] ** 2)
base = logits.softmax(-1)  # [step, present shade, next shade]
white = (shades > 0.9).double()


def last_shade(policy: Float[Tensor, "steps shades shades"]) -> Float[Tensor, "shades"]:
    """The chance of each shade at the end."""
    chances = torch.eye(SHADES, dtype=torch.float64)[0]
    for table in policy:
        chances = chances @ table
    return chances


# %%
states = STEPS * SHADES + SHADES  # state number: step * 9 + shade
moves = torch.zeros(states, SHADES, states, dtype=torch.float64)
for state in range(STEPS * SHADES):
    moves[state, torch.arange(SHADES), (state // SHADES + 1) * SHADES + torch.arange(SHADES)] = 1
over = torch.arange(states) >= STEPS * SHADES
verdict = torch.zeros(states, SHADES, dtype=torch.float64)
verdict[(STEPS - 1) * SHADES : STEPS * SHADES] = white
generator = MDP(torch.where(over[:, None, None], torch.eye(states).double()[:, None], moves), verdict, over)

# %%
prior = torch.full((states, SHADES), 1 / SHADES, dtype=torch.float64)
prior[: STEPS * SHADES] = base.reshape(-1, SHADES)
chance = evaluate_policy(generator.transitions, generator.rewards, prior, 0.9999999, 1e-6)[0].item()
best = value_iteration(generator.transitions, generator.rewards, 0.9999999, 1e-6)[0].item()
print(f"the base draws white with probability {chance:.4f} (counted forward: {last_shade(base) @ white:.4f})")
print(f"the best policy draws white with probability {best:.4f}")

# %% [markdown]
# Your planner has "fine-tuned" a generator. It draws white, *always*, and everything else that the base could draw is
# lost. With real generators this is the first thing that goes wrong, and the remedy of this whole book is a leash: the
# policy pays $\beta \log \dfrac{\pi(a \mid s)}{\pi_\text{base}(a \mid s)}$ for each action. Then the best choice is
# not one action but a compromise, and the maximum in Bellman's equation becomes a *soft* one.

# %% [markdown] goal="1.7"
# *For the curious.* With the leash, the best policy and its value in each state are
#
# $$v(s) = \beta \log \sum_a \pi_\text{base}(a \mid s)\, e^{q(s, a)/\beta}, \qquad
# \pi(a \mid s) = \pi_\text{base}(a \mid s)\, e^{(q(s, a) - v(s))/\beta} .$$
#
# Return both. For a small $\beta$ the exponential overflows, if you take it as it stands; the result does not.


# %% exercise={"id": "1.7", "name": "soft_backup", "title": "The maximum on a leash (for the curious)", "points": 3, "minutes": 15, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control"]}
def soft_backup(
    q: Float[Tensor, "states actions"], base: Float[Tensor, "states actions"], beta: float
) -> tuple[Float[Tensor, "states"], Float[Tensor, "states actions"]]:
    """Value and policy that maximise the expected action value less beta times the KL to the base."""
    ### BEGIN SOLUTION
    weights = base.log() + q / beta
    return beta * weights.logsumexp(-1), weights.softmax(-1)
    ### END SOLUTION


# %% [markdown] hints="1.7"
# <details><summary>Hint 1: stay in logarithms</summary>
#
# The logarithm of a probability times an exponential is a sum of two terms. Call it the weight of an action.
#
# </details>
# <details><summary>Hint 2: torch has it</summary>
#
# `logsumexp(-1)` is the logarithm of the sum of exponentials, without overflow. `softmax(-1)` divides by that very sum.
#
# </details>
# <details><summary>Hint 3: units</summary>
#
# The weight has been divided by beta. The value must be in the units of the reward again.
#
# </details>

# %% check="1.7"
check("1.7", soft_backup)

# %% [markdown]
# Four sweeps, from the last step to the first, and the plan is made. Theory has a formula for what it must be: whole
# episodes $\tau$ should come with probability $p^*(\tau) = p_\text{base}(\tau)\, e^{r(\tau)/\beta} / Z$. All 6,561
# episodes can be counted, so let us look.

# %%
BETA = 0.4
ahead, planned = torch.zeros(states, dtype=torch.float64), prior
for _ in range(STEPS):
    q = action_values(generator.transitions, generator.rewards, ahead, 1.0)
    ahead, planned = soft_backup(q, prior, BETA)
    ahead = torch.where(over, 0.0, ahead)
plan = planned[: STEPS * SHADES].view(STEPS, SHADES, SHADES)
episodes, by_base = chain_distribution(base.log())
by_plan = chain_distribution(plan.log())[1]
optimum = tilted(by_base, white[episodes[:, -1]], BETA)
leash_error = (by_plan - optimum).abs().max().item()
print(f"{len(episodes)} episodes; largest difference of a probability from the formula: {leash_error:.1e}")
assert leash_error < 1e-12

# %%
figure = Figure(figsize=(6.4, 2.8))
axis = figure.subplots()
order = shades.argsort()
best_only = (torch.arange(SHADES) == white.argmax()).double()
bars = {"base": last_shade(base), "planned, on a leash": last_shade(plan), "planned, no leash": best_only}
for number, (name, chances) in enumerate(bars.items()):
    axis.bar(shades[order] + 0.06 * (number - 1), chances[order], 0.06, label=name, color=OTHERS[number])
axis.set(xlabel="shade at the end, from black to white", ylabel="probability")
axis.legend(frameon=False, fontsize=8)
viz.picture(figure, alt="Probabilities of nine shades. The base has most at black and at white; the plan on a leash "
            "moves weight to white and keeps the rest in proportion; without a leash all is white.")  # fmt: skip

# %% [markdown]
# This formula, the base tilted by the reward, is where every method of this book wants to go. You have just reached it
# by planning, exactly, because you could write down the table. Can you for a real generator? The one of lab 07 has a
# picture of 256 numbers, each of which can take some 65,536 values in half precision:

# %%
entries = {"4x4 lake": small.transitions.numel(), "8x8 lake": large.transitions.numel(), "one pixel": moves.numel()}
digits = 3 * 256 * math.log10(65536)
for name, count in entries.items():
    print(f"{name:10} a table of {count} numbers")
print(f"lab 07     a table of 10^{digits:.0f} numbers, for a picture the size of a thumbnail")

# %% [markdown]
# Nobody will ever write down that table. *That* is the problem of reinforcement learning: the equations of this lab,
# without the table. All that is left is what the walkers of section 1 did: try, and look at what happened. From lab 02
# on you learn from **samples**. The equations stay.
#
# ## What to take away
#
# - A policy says what to do in each state. Its value is the expected discounted return, and Bellman's equation ties
# the value of a state to those of its successors.
# - A sweep looks one step ahead, everywhere. It shrinks every error by the discount; that tells you when to stop.
# - Evaluate, be greedy, repeat: the policy never gets worse and soon is best. Or be greedy in every sweep.
# - The discount is how far you see. It changes what is best, not only what it is worth.
# - A generator is a decision process. On a leash, its best policy is the base tilted by the reward.
#
# The cell below writes down what happened here.

# %%
record = write_record(
    "01-planning",
    {
        "evaluation_error": evaluation_error,
        "planning_error": planning_error,
        "leash_error": leash_error,
        "success": {name: {"before": s["random"], "after": s["plan for ice"]} for name, s in success.items()},
        "success_of_the_dry_plan": {name: kinds["plan for dry ground"] for name, kinds in success.items()},
        "start_worth": {"walking": by_walking, "walking_error": error, "exact": exact[0].item()},
        "rounds_of_policy_iteration": len(rounds),
    },
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/01.json")
