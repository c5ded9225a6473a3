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
# # Lab 02: what is this position worth?
#
# In lab 01 you had the map: every probability, every reward. Most worlds come without one. You are put down
# somewhere, you act, things happen, and only afterwards do you know how it went. *Can you still find out what a
# position is worth, and which move is best?*
#
# You can, in two ways. **Wait** for the end and average what you got: Monte Carlo. Or **guess** what is still to come
# from your own estimate, and learn from the guess: temporal differences, TD. The second sounds like pulling oneself
# up by one's bootstraps, and it is called *bootstrapping*. It is the idea behind Q-learning, behind DQN and behind the
# critic of lab 04. It can also blow up, and you will watch it do so.
#
# Seven exercises, about 75 minutes. Your functions walk along a cliff, blow up, and balance a pole. Chapter 02 is the
# text beside it.

# %%
import torch
from IPython.display import Markdown
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from torch import Tensor

# %%
from pixelpolicy import control, viz
from pixelpolicy.control import dqn, td
from pixelpolicy.control.replay import Replay
from pixelpolicy.course import check
from pixelpolicy.course.results import start_timer, write_record
from pixelpolicy.profiles import choose, seed
from pixelpolicy.viz.figures import OTHERS

torch.set_num_threads(1)  # networks this small are quickest on one
lab_clock = start_timer()

# %% [markdown]
# ## 1. Wait for the end
#
# A pier has seven places. You begin on the middle one, and a drunken helmsman decides: each step goes left or right
# with probability one half. Off the left end you fall into the sea and get nothing. Off the right end you are home and
# get 1. Here are some evenings:

# %%
PLACES = 7
WORTH = torch.arange(1, PLACES + 1).double() / (PLACES + 1)  # the chance to come home; lab 01 would solve for it
Walk = tuple[Int[Tensor, "time"], Float[Tensor, "time"]]


def walk(stream: torch.Generator) -> Walk:
    """One evening: the places that were visited, and the reward that followed each."""
    place, visited = PLACES // 2, []
    while 0 <= place < PLACES:
        visited.append(place)
        place += 2 * int(torch.randint(2, (), generator=stream)) - 1
    rewards = torch.zeros(len(visited)).double()
    rewards[-1] = float(place == PLACES)
    return torch.tensor(visited), rewards


# %%
stream = torch.Generator().manual_seed(seed())
evenings = [walk(stream) for _ in range(choose(smoke=200, cpu=1000, gpu=1000))]
figure = Figure(figsize=(7.5, 2.8))
axis = figure.subplots()
for visited, rewards in evenings[:14]:
    home = rewards[-1] == 1
    ends = [*visited.tolist(), PLACES if home else -1]
    axis.plot(ends, color=OTHERS[1] if home else OTHERS[5], linestyle="-" if home else "--", alpha=0.8, linewidth=1.2)
axis.set(xlabel="step", ylabel="place", yticks=range(-1, PLACES + 1), yticklabels=["sea", *"0123456", "home"])
viz.picture(figure, alt="Fourteen random walks from place 3: solid lines end at home above place 6, dashed lines in "
            "the sea below place 0; some take four steps, others thirty.")  # fmt: skip

# %% [markdown] goal="2.1"
# The **return** of a visit is what came after it, later rewards discounted:
# $G_t = r_t + \gamma r_{t+1} + \gamma^2 r_{t+2} + \dots$, where $r_t$ is the reward that followed step $t$ and the
# **discount** $\gamma$ (gamma) lies between 0 and 1. The **value** of a state is the return you expect from there on.
# Monte Carlo estimates it by the mean over all visits that you have seen, the second visit of an episode too.
#
# `episodes` is a list of pairs (states, rewards) as `walk` makes them. Return one value a state; 0 for a state that
# nobody visited. Going through an episode *backwards* makes it short: $G_t = r_t + \gamma G_{t+1}$.


# %% exercise={"id": "2.1", "name": "monte_carlo", "title": "The mean of what came after", "points": 2, "minutes": 10, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control", "pixelpolicy.finetune"]}
def monte_carlo(
    episodes: list[tuple[Int[Tensor, "time"], Float[Tensor, "time"]]], states: int, discount: float
) -> Float[Tensor, "states"]:
    """The mean return that followed the visits to each state."""
    ### BEGIN SOLUTION
    totals, visits = torch.zeros(states).double(), torch.zeros(states).double()
    for visited, rewards in episodes:
        after = 0.0
        for state, reward in zip(visited.tolist()[::-1], rewards.tolist()[::-1], strict=True):
            after = reward + discount * after
            totals[state] += after
            visits[state] += 1
    return totals / visits.clamp(min=1)
    ### END SOLUTION


# %% [markdown] hints="2.1"
# <details><summary>Hint 1: two tables</summary>
#
# Keep, for each state, the sum of its returns and the number of its visits. At the end, divide one by the other.
#
# </details>
# <details><summary>Hint 2: backwards</summary>
#
# Start each episode with a return of 0 after its end. Go from the last step to the first, and renew the return from
# the reward of the step.
#
# </details>
# <details><summary>Hint 3: nobody was there</summary>
#
# 0 divided by 0 is nan. Dividing by at least 1 leaves the sum of a state without visits at 0.
#
# </details>

# %% check="2.1"
check("2.1", monte_carlo)

# %% [markdown]
# Your estimate, after 10 walks, 100 and all of them, on the line of true values:

# %%
figure = Figure(figsize=(6.2, 3.2))
axis = figure.subplots()
axis.plot(WORTH, color="#777777", linestyle="--", label="truth")
for colour, marker, count in zip(OTHERS, "o^s", (10, 100, len(evenings)), strict=False):
    estimate = monte_carlo(evenings[:count], PLACES, 1.0)
    axis.plot(estimate, marker, color=colour, label=f"{count} walks")
axis.set(xlabel="place", ylabel="value: chance to come home", ylim=(-0.05, 1.05))
axis.legend(frameon=False, fontsize=8)
viz.picture(figure, alt="Values of seven places against a straight line from one eighth to seven eighths: after ten "
            "walks they are far off, after all walks they lie on it.")  # fmt: skip

# %% [markdown]
# It works, and it needs no map. But it is slow to profit from what it sees. A walk that stood on place 6 and fell into
# the sea in the end counts as a bad evening for place 6, though everybody knows that place 6 is one step from home.
#
# ## 2. Or learn a guess from a guess
#
# Look one step ahead. If you are at $s$, get the reward $r$ and arrive at $s'$, then $V(s)$ should have been about
# $r + \gamma V(s')$: that is Bellman's equation from lab 01, for the one step that happened. This number is the
# **target** of TD(0). It is there after every step, before you know how the evening ends.

# %% [markdown] goal="2.2"
# Write the target for a batch of steps. Two flags say how a step ended, as in Gymnasium:
#
# - `terminated`: the world ended. Nothing comes after it, so the target is the reward alone.
# - `truncated`: somebody stopped the clock, say after 500 steps. The world would have gone on, so the next state is
#   worth what it is worth.
#
# A step may be both; then the world has ended.


# %% exercise={"id": "2.2", "name": "td_target", "title": "What a step should have been worth", "points": 2, "minutes": 8, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control", "pixelpolicy.finetune"]}
def td_target(
    rewards: Float[Tensor, "batch"],
    next_values: Float[Tensor, "batch"],
    terminated: Bool[Tensor, "batch"],
    truncated: Bool[Tensor, "batch"],
    discount: float,
) -> Float[Tensor, "batch"]:
    """The target of TD(0) for each step."""
    ### BEGIN SOLUTION
    return rewards + discount * next_values * ~terminated
    ### END SOLUTION


# %% [markdown] hints="2.2"
# <details><summary>Hint 1: a switch</summary>
#
# The second term is there, or it is not. A boolean tensor multiplies as 0 and 1; `~` turns it over.
#
# </details>
# <details><summary>Hint 2: which flag</summary>
#
# Ask of each flag: does the world go on after it? Only one of them says no.
#
# </details>
# <details><summary>Hint 3: the other flag</summary>
#
# It is a trap. You need not use it at all.
#
# </details>

# %% check="2.2"
check("2.2", td_target)

# %% [markdown]
# Now your target learns the pier online. All values begin at one half; after each step, the value of the place that
# was left goes a tenth of the way to your target. (`td.td0` is that loop; the target in it is yours.)

# %%
figure = Figure(figsize=(6.2, 3.2))
axis = figure.subplots()
axis.plot(WORTH, color="#777777", linestyle="--", label="truth")
values, done = torch.full((PLACES,), 0.5).double(), 0
for colour, marker, count in zip(OTHERS, "o^sD", (0, 1, 10, 100), strict=False):
    values = td.td0(evenings[done:count], values, 0.1, 1.0, target=td_target)
    axis.plot(values, marker + "-", color=colour, linewidth=0.8, label=f"after {count}")
    done = count
axis.set(xlabel="place", ylabel="value", ylim=(-0.05, 1.05))
axis.legend(frameon=False, fontsize=8)
viz.picture(figure, alt="Values of seven places: flat at one half before the first walk; after one walk only an end "
            "has moved; after a hundred they lie near the straight line of the truth.")  # fmt: skip

# %% [markdown]
# After one walk only an end of the pier has moved: a step in the middle learnt one half from one half. Knowledge seeps
# inwards from the ends, one place a visit. Is that better than waiting? Let both have the same few walks, and let TD
# go over them again and again until its values rest.


# %%
def steps_of(walks: list[Walk], clock: int = 10**9) -> tuple[Tensor, ...]:
    """All steps of some walks as (state, reward, next state, terminated, truncated), each walk cut by the clock."""
    rows = []
    for visited, rewards in walks:
        last, following = len(visited) - 1, [*visited.tolist()[1:], 0]
        for t in range(min(len(visited), clock)):
            rows.append((visited[t], rewards[t], following[t], t == last, t == clock - 1 and t < last))
    states, rewards, following, over, cut = zip(*rows, strict=True)
    return torch.tensor(states), torch.tensor(rewards), torch.tensor(following), torch.tensor(over), torch.tensor(cut)


def batch_td(steps: tuple[Tensor, ...], sweeps: int = 150) -> Tensor:
    """Every value becomes the mean of your targets at its place, again and again."""
    states, rewards, following, over, cut = steps
    visits, values = torch.bincount(states, minlength=PLACES), torch.zeros(PLACES).double()
    for _ in range(sweeps):
        wanted = td_target(rewards, values[following], over, cut, 1.0)
        values = torch.zeros(PLACES).double().index_add(0, states, wanted) / visits.clamp(min=1)
    return values


# %%
COUNTS, RUNS = (4, 8, 16, 32, 64), choose(smoke=5, cpu=60, gpu=60)
sets = [[walk(stream) for _ in range(COUNTS[-1])] for _ in range(RUNS)]
walk_errors = {"Monte Carlo": [], "TD(0)": []}
for count in COUNTS:
    found = {
        "Monte Carlo": [monte_carlo(walks[:count], PLACES, 1.0) for walks in sets],
        "TD(0)": [batch_td(steps_of(walks[:count])) for walks in sets],
    }
    for name, estimates in found.items():
        walk_errors[name].append((torch.stack(estimates) - WORTH).square().mean().sqrt().item())
viz.curves(
    {name: (COUNTS, row) for name, row in walk_errors.items()},
    xlabel=f"walks (mean of {RUNS} sets of them)", ylabel="error of the values (root of the mean square)",
    alt=f"The error of both falls with the number of walks; with {COUNTS[-1]} walks Monte Carlo is off by "
    f"{walk_errors['Monte Carlo'][-1]:.3f}, TD(0) by {walk_errors['TD(0)'][-1]:.3f}.",
)  # fmt: skip

# %% [markdown]
# The same walks, and TD knows more. It uses what Monte Carlo throws away: that evenings *meet*. Whatever happened
# after place 5, in any walk, tells about every walk that came to place 5. The price is a **bias**: while $V(s')$ is
# wrong, the target is wrong.
#
# One flag, by the way, decides whether all this is right. Say we only ever watch the first five steps of an evening:

# %%
cut_steps = steps_of(evenings, clock=5)
states, rewards, following, over, cut = cut_steps
clock_values = {
    "clock is no end": batch_td(cut_steps),
    "clock taken for an end": batch_td((states, rewards, following, over | cut, cut)),
}
figure = Figure(figsize=(6.2, 3.0))
axis = figure.subplots()
axis.plot(WORTH, color="#777777", linestyle="--", label="truth")
for colour, marker, (name, values) in zip(OTHERS, "o^", clock_values.items(), strict=False):
    axis.plot(values, marker + "-", color=colour, linewidth=0.8, label=name)
axis.set(xlabel="place", ylabel="value", ylim=(-0.05, 1.05))
axis.legend(frameon=False, fontsize=8)
viz.picture(figure, alt="Walks cut after five steps. With your target the values lie on the truth; where the clock is "
            "taken for an end they lie far below it, most of all in the middle.")  # fmt: skip

# %% [markdown]
# Your target finds the truth although hardly any walk was seen to its end. CartPole stops its clock after 500 steps;
# the same line of code will decide there what balancing is worth.
#
# ## 3. Which move?
#
# A value of a state does not say what to do, unless you know where each move leads. So keep a value for each *move*:
# $Q(s, a)$, what you get if you take action $a$ in state $s$ and play well from there on. Then the best move is the
# largest entry of a row. But the row knows only what you have tried. Somebody who always takes the best-looking move
# never learns that another was better; one who always tries gets nowhere.

# %% [markdown] goal="2.3"
# The oldest compromise is **epsilon-greedy**: with probability $\varepsilon$ choose blindly among *all* actions, else
# take the best. Return the probability of each action, for rows `[..., actions]`. Where several actions tie for the
# best, they share its probability: a fresh table of zeros has no favourite.


# %% exercise={"id": "2.3", "name": "epsilon_greedy", "title": "Mostly the best, sometimes anything", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control", "pixelpolicy.finetune"]}
def epsilon_greedy(values: Float[Tensor, "*batch actions"], epsilon: float) -> Float[Tensor, "*batch actions"]:
    """The probability of each action."""
    ### BEGIN SOLUTION
    best = (values == values.amax(-1, keepdim=True)).to(values.dtype)
    return epsilon / values.shape[-1] + (1 - epsilon) * best / best.sum(-1, keepdim=True)
    ### END SOLUTION


# %% [markdown] hints="2.3"
# <details><summary>Hint 1: two policies, mixed</summary>
#
# Write the blind policy and the greedy policy as probabilities. The answer is epsilon times one plus 1 - epsilon times
# the other.
#
# </details>
# <details><summary>Hint 2: the greedy one</summary>
#
# Compare each row with its own maximum: `values.amax(-1, keepdim=True)`. That marks the best ones, ties and all.
#
# </details>
# <details><summary>Hint 3: a row of four zeros</summary>
#
# All four are the best, so each must get a quarter. Divide the marks by their number in the row.
#
# </details>

# %% check="2.3"
check("2.3", epsilon_greedy)

# %% [markdown]
# Put to work: four wheels of fortune with average prizes 0, 0.3, 0.6 and 1, and a noise of size 1 on each prize. 500
# players keep the mean prize of each wheel and choose by your probabilities.


# %%
def play_wheels(epsilon: float, rounds: int = 300, players: int = 500) -> Tensor:
    """Average prize of each round."""
    stream, prizes = torch.Generator().manual_seed(seed()), torch.tensor([0.0, 0.3, 0.6, 1.0])
    values, counts, row = torch.zeros(players, 4), torch.zeros(players, 4), torch.arange(players)
    earned = []
    for _ in range(rounds):
        wheel = torch.multinomial(epsilon_greedy(values, epsilon), 1, generator=stream).squeeze(-1)
        counts[row, wheel] += 1
        prize = prizes[wheel] + torch.randn(players, generator=stream)
        values[row, wheel] += (prize - values[row, wheel]) / counts[row, wheel]
        earned.append(prizes[wheel].mean())
    return torch.stack(earned)


wheels = {f"epsilon {epsilon}": play_wheels(epsilon) for epsilon in (0.0, 0.1, 1.0)}
viz.curves(
    {name: (range(len(row)), row) for name, row in wheels.items()},
    levels={"the best wheel": 1.0}, xlabel="round", ylabel="mean prize of the chosen wheel", ylim=(0, 1.08),
    alt="Blind choice stays at the mean prize; the greedy players rise at once and stop below the best wheel; with "
    f"epsilon 0.1 they go on rising, to {wheels['epsilon 0.1'][-50:].mean():.2f}.",
)  # fmt: skip

# %% [markdown]
# The greedy players are stuck with the first wheel that was kind to them. A tenth of blind choices costs a little for
# ever, and finds the best wheel.
#
# ### A cliff
#
# `CliffWalking-v1`: four rows of twelve fields. You start below on the left; the goal is below on the right; between
# them is a cliff. Every step costs 1. Who steps into the cliff pays 100 and is carried back to the start.


# %%
def draw_cliff(axis, path: list[int], q: Tensor | None = None, title: str = "") -> None:
    """The map, a path on it, and the best move of each field where there is a table."""
    axis.imshow([[1.0] * 12] * 3 + [[1.0] + [0.45] * 10 + [1.0]], cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[], title=title)
    for field in range(37) if q is not None else ():
        if q[field].any():
            dx, dy = [(0, -1), (1, 0), (0, 1), (-1, 0)][int(q[field].argmax())]
            row, column = divmod(field, 12)
            axis.arrow(column - 0.2 * dx, row - 0.2 * dy, 0.3 * dx, 0.3 * dy, head_width=0.16, color="#999999")
    axis.plot([s % 12 for s in path], [s // 12 for s in path], color=OTHERS[0], linewidth=2.5, alpha=0.8)
    for name, field in {"start": 36, "goal": 47}.items():
        axis.text(field % 12, field // 12, name, ha="center", va="center", fontsize=7)
    axis.text(5.5, 3, "cliff", ha="center", va="center", fontsize=8, color="white")


# %% [markdown] goal="2.4"
# **Q-learning** (Watkins and Dayan, 1992): after each step, move the entry of the move you made a part of the way towards the
# reward plus the discounted **best** entry of the next row,
#
# $$Q(s,a) \leftarrow Q(s,a) + \alpha\,\big[r + \gamma \max_{a'} Q(s',a') - Q(s,a)\big],$$
#
# where $\alpha$ (alpha) is the step size. At a terminal step the maximum is left out. Return the table after the step.


# %% exercise={"id": "2.4", "name": "q_learning_update", "title": "Q-learning", "points": 3, "minutes": 12, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control", "pixelpolicy.finetune"]}
def q_learning_update(
    q: Float[Tensor, "states actions"],
    state: int,
    action: int,
    reward: float,
    next_state: int,
    terminated: bool,
    step_size: float,
    discount: float,
) -> Float[Tensor, "states actions"]:
    """The table after one step of Q-learning."""
    ### BEGIN SOLUTION
    target = reward if terminated else reward + discount * q[next_state].max()
    q = q.clone()
    q[state, action] += step_size * (target - q[state, action])
    return q
    ### END SOLUTION


# %% [markdown] hints="2.4"
# <details><summary>Hint 1: target first</summary>
#
# It is one number: the reward, and unless the world ended, what the next row promises at best.
#
# </details>
# <details><summary>Hint 2: one entry</summary>
#
# Only `q[state, action]` changes. It goes the part `step_size` of its way to the target.
#
# </details>
# <details><summary>Hint 3: the table</summary>
#
# Work on `q.clone()` and return it. With step size 1 the entry must equal the target.
#
# </details>

# %% check="2.4"
check("2.4", q_learning_update)

# %% [markdown]
# Your two functions, 500 episodes. No map, no gradient: a table of zeros, and mishaps.

# %%
EPISODES = choose(smoke=100, cpu=500, gpu=500)
CLIFF = "CliffWalking-v1"
cliff_config = td.TableConfig(episodes=EPISODES, step_size=0.1, discount=1.0, epsilon=0.1)
learnt = td.q_learning(CLIFF, cliff_config, seed=seed(), update=q_learning_update, explore=epsilon_greedy)
path, path_return = td.greedy_path(learnt.q, CLIFF)
figure = Figure(figsize=(7, 2.6))
draw_cliff(figure.subplots(), path, learnt.q, f"Q-learning, greedy: return {path_return:.0f}")
viz.picture(figure, alt=f"The map of the cliff with an arrow for the best move of each field. The greedy path has "
            f"{len(path) - 1} steps and a return of {path_return:.0f}.")  # fmt: skip

# %%
print(f"greedy return {path_return:.0f}; its first episode while learning: {learnt.returns[0]:.0f}; "
      f"mean of its last 100: {learnt.returns[-100:].mean():.0f}")  # fmt: skip
along = [f"{learnt.q[s].max():.2f}" for s in path[:-1]]
print("what it expects along its path:", " ".join(along))

# %% [markdown]
# Thirteen steps, hard along the edge: the best there is, and the table knows it step by step. Yet look at the mean
# *while it was learning*. It kept falling off the cliff, because one move in ten is blind, and beside the cliff a blind
# move is dear. Q-learning does not care. It learns about the *best* policy, whatever it does meanwhile. Learning about
# one policy while another one plays is called **off-policy**.

# %% [markdown] goal="2.5"
# **SARSA** learns about the very policy that plays, its blind moves and all (**on-policy**). Instead of the best next
# entry it takes that of the action which was really chosen next, $a'$:
#
# $$Q(s,a) \leftarrow Q(s,a) + \alpha\,\big[r + \gamma\, Q(s',a') - Q(s,a)\big].$$
#
# (Its name lists what it uses: state, action, reward, state, action.)


# %% exercise={"id": "2.5", "name": "sarsa_update", "title": "SARSA", "points": 1, "minutes": 5, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control", "pixelpolicy.finetune"]}
def sarsa_update(
    q: Float[Tensor, "states actions"],
    state: int,
    action: int,
    reward: float,
    next_state: int,
    next_action: int,
    terminated: bool,
    step_size: float,
    discount: float,
) -> Float[Tensor, "states actions"]:
    """The table after one step of SARSA."""
    ### BEGIN SOLUTION
    target = reward if terminated else reward + discount * q[next_state, next_action]
    q = q.clone()
    q[state, action] += step_size * (target - q[state, action])
    return q
    ### END SOLUTION


# %% [markdown] hints="2.5"
# <details><summary>Hint 1: what changes</summary>
#
# One word of your Q-learning.
#
# </details>
# <details><summary>Hint 2: which pair</summary>
#
# The next action is taken in the next state: look the pair up in the table.
#
# </details>
# <details><summary>Hint 3: the end</summary>
#
# After a terminal step a next action is handed to you all the same. It means nothing.
#
# </details>

# %% check="2.5"
check("2.5", sarsa_update)

# %%
careful = td.sarsa(CLIFF, cliff_config, seed=seed(), update=sarsa_update, explore=epsilon_greedy)
careful_path, careful_return = td.greedy_path(careful.q, CLIFF)
figure = Figure(figsize=(9.5, 2.4))
left, right = figure.subplots(1, 2)
draw_cliff(left, path, learnt.q, f"Q-learning: greedy {path_return:.0f}")
draw_cliff(right, careful_path, careful.q, f"SARSA: greedy {careful_return:.0f}")
viz.picture(figure, alt="Two maps of the cliff. Q-learning's path runs along the edge; SARSA's keeps away from it.")


# %%
def smooth(returns: Tensor, width: int = 30) -> Tensor:
    """Mean over a window of episodes."""
    return returns.unfold(0, width, 1).mean(1)


online = {"Q-learning": learnt.returns, "SARSA": careful.returns}
viz.curves(
    {name: (range(30, EPISODES + 1), smooth(row)) for name, row in online.items()},
    xlabel="episode", ylabel="return while learning (mean of 30)", ylim=(-150, 0),
    alt=f"Both rise quickly. Over the last hundred episodes Q-learning earns {learnt.returns[-100:].mean():.0f} an "
    f"episode, SARSA {careful.returns[-100:].mean():.0f}.",
)  # fmt: skip

# %% [markdown]
# SARSA takes the long way round and earns more *while it explores*. Both are right, about different questions. If your
# policy will be greedy in the end, ask Q-learning's question; if it will go on stumbling, ask SARSA's. You will meet
# the same fork with generators: on-policy methods (labs 09, 12) sample anew from the model that learns, off-policy ones
# reuse what an older model made.
#
# ## 4. The deadly triad
#
# A table has an entry for each state. CartPole has as many states as there are numbers, so we must **approximate**:
# $V(s) = w \cdot \phi(s)$, weights times features, or a network. Then moving the value of one state moves others too.
# Each of three ingredients is harmless: approximation, bootstrapping, off-policy learning. All three together can
# diverge, without any noise or any large step. Baird gave the classic example.
#
# Seven states in a star, eight weights. From everywhere, the *target policy* always goes to the state in the middle.
# The policy that *plays* goes to each of the seven with the same probability. No reward is ever given. So every value
# is 0, and the weights could say so.

# %%
star = torch.zeros(7, 8).double()
star[:6, :6], star[:6, 7] = 2 * torch.eye(6), 1.0  # an outer state: twice its own weight, and the shared one
star[6, 6], star[6, 7] = 1.0, 2.0  # the middle: its own, and twice the shared one
first_weights = torch.tensor([1, 1, 1, 1, 1, 1, 10, 1]).double()
Markdown("| state | value |\n|---|---|\n" + "\n".join(f"| outer {i} | $2w_{i} + w_7$ |" for i in range(6))
         + "\n| middle | $w_6 + 2w_7$ |")  # fmt: skip

# %% [markdown] goal="2.6"
# Write one step of linear TD(0), off the policy. The error is the target minus the value, and the weights move along
# the features of the state that was *left*:
#
# $$w \leftarrow w + \alpha\,\rho\,\big[r + \gamma\, w\cdot\phi' - w\cdot\phi\big]\,\phi.$$
#
# $\rho$ (rho), the **importance ratio**, says how much likelier the step was under the target policy than under the
# one that played: here 7 for a step to the middle, 0 for any other. The target counts as a number: no gradient goes
# through it, which is why this is called a *semi-gradient*.


# %% exercise={"id": "2.6", "name": "linear_td_update", "title": "TD with features, off the policy", "points": 3, "minutes": 12, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control", "pixelpolicy.finetune"]}
def linear_td_update(
    weights: Float[Tensor, "features"],
    features: Float[Tensor, "features"],
    next_features: Float[Tensor, "features"],
    reward: float,
    ratio: float,
    step_size: float,
    discount: float,
) -> Float[Tensor, "features"]:
    """The weights after one step of off-policy semi-gradient TD(0)."""
    ### BEGIN SOLUTION
    error = reward + discount * weights @ next_features - weights @ features
    return weights + step_size * ratio * error * features
    ### END SOLUTION


# %% [markdown] hints="2.6"
# <details><summary>Hint 1: three factors and a direction</summary>
#
# Step size, ratio and error are numbers. The direction is a vector: which state's value was wrong?
#
# </details>
# <details><summary>Hint 2: a value</summary>
#
# It is the sum of weights times features: `weights @ features`.
#
# </details>
# <details><summary>Hint 3: a table</summary>
#
# Let each state have a feature of its own, 1 there and 0 elsewhere. Your step must then be the plain TD(0) of
# section 2.
#
# </details>

# %% check="2.6"
check("2.6", linear_td_update)


# %% [markdown]
# Run it on the star, once with all three ingredients, and three times with one of them taken away.


# %%
def baird(
    features: Tensor, weights: Tensor, *, off_policy: bool = True, bootstrap: bool = True, step_size: float = 0.03
) -> list[float]:
    """Error of the values (root of the mean square; the truth is 0) after each of 3,000 steps of yours."""
    stream, state, errors = torch.Generator().manual_seed(seed()), 0, []
    for _ in range(choose(smoke=600, cpu=3000, gpu=3000)):
        following = int(torch.randint(7, (), generator=stream))
        ratio = 7.0 * (following == 6) if off_policy else 1.0
        ahead = features[following] if bootstrap else torch.zeros_like(weights)  # the return itself is 0
        weights = linear_td_update(weights, features[state], ahead, 0.0, ratio, step_size, 0.99)
        state = following
        errors.append((features @ weights).square().mean().sqrt().item())
    return errors


# %%
table = torch.eye(7).double()
triad = {
    "all three": baird(star, first_weights),
    "on-policy": baird(star, first_weights, off_policy=False),
    "no bootstrapping": baird(star, first_weights, bootstrap=False),
    "a table": baird(table, star @ first_weights, step_size=0.2),
}
figure = Figure(figsize=(6.4, 3.4))
axis = figure.subplots()
for colour, style, (name, row) in zip(OTHERS, ("-", "--", ":", "-."), triad.items(), strict=False):
    axis.semilogy(row, color=colour, linestyle=style, label=name)
    print(f"{name:17} error {row[0]:6.2f} -> {row[-1]:.3g}")
axis.set(xlabel="step", ylabel="error of the values", ylim=(1e-6, 1e12))
axis.legend(frameon=False, fontsize=8, ncols=2)
viz.picture(figure, alt="Error on a logarithmic axis. With all three ingredients it grows to "
            f"{triad['all three'][-1]:.1g}; on-policy, without bootstrapping, or with a table "
            "nothing grows.")  # fmt: skip

# %% [markdown]
# Your update is correct, and it explodes. Raising the shared weight raises the middle twice as much as the state that
# asked for it, so the target runs away from the value that follows it. On-policy, steps *from* the middle would pull it
# back; the ratio hides them. Without any one of the three nothing grows. (The table creeps: with a discount of 0.99,
# each visit passes nearly all of its error on.) So drop one ingredient, or make all three gentle.
#
# ## 5. DQN: all three, made gentle
#
# DQN (Mnih and colleagues, 2013) takes all three, with a network for $Q$, and two tricks that calm it:
#
# - **Replay.** Steps go into a large store, and each update draws a batch from it. Neighbouring steps resemble each
#   other; a batch from many episodes does not forget one half of the world while it learns the other.
# - **A target network**: a copy that lags behind. Targets come from it, so that what we chase holds still for a while.
#
# CartPole has a cart, and a pole on it; each step pushes left or right, and earns 1 while the pole stands. After 500
# steps the clock stops. Sixteen carts run side by side; when one falls it is set up anew *at the next step*. That step
# ignores your action: it is no experience. Look:


# %%
def blind(observations: Tensor) -> tuple[Tensor, Tensor]:
    """Left or right by a coin; the second number, a log-probability, is not needed here."""
    return torch.randint(2, (len(observations),), generator=stream), torch.zeros(len(observations))


# %%
envs = control.make("CartPole-v1", 16)
seen = control.Collector(envs, seed=seed()).collect(blind, 200)
fall = int(seen.terminated[:, 0].nonzero()[0])
rows = [f"| {t} | {seen.observations[t, 0, 2]:+.2f} | {seen.actions[t, 0]} | {seen.rewards[t, 0]:.0f} | "
        f"{bool(seen.terminated[t, 0])} | {bool(seen.valid[t, 0])} |" for t in range(fall - 2, fall + 3)]  # fmt: skip
Markdown("| step | angle | action | reward | terminated | valid |\n|---|---|---|---|---|---|\n" + "\n".join(rows))

# %%
store = Replay(10_000, ahead=1, discount=0.97, seed=seed())
store.add(seen)
resets = int((~seen.valid).sum())
print(f"{seen.valid.numel()} steps of 16 carts, {resets} of them resets; the replay keeps {len(store)}")

# %% [markdown] goal="2.7"
# What should $Q(s, a)$ have been? The code below can look $n$ steps ahead: `returns` holds the discounted sum of the
# next $n$ rewards, and `discounts` what is left of a reward after them, $\gamma^n$. We take $n = 1$: `returns` is the
# reward, `discounts` is $\gamma$. To the return, add what the state *then* is worth.
#
# The plain answer is the largest value there. But estimates are noisy, and the largest of several noisy numbers is
# mostly one that erred upwards. **Double** Q-learning takes the luck out: the online network *chooses* the action, and
# the target network *judges* it,
#
# $$y = G + \gamma^n\, Q_{\text{target}}\big(s',\ \arg\max_{a} Q_{\text{online}}(s', a)\big).$$
#
# `next_online` and `next_target` are the values of both networks at $s'$. Where the world ended, $y = G$. The clock is
# no end; you know why. A target is a number: no gradient.


# %% exercise={"id": "2.7", "name": "dqn_targets", "title": "One chooses, the other judges", "points": 3, "minutes": 15, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.control", "pixelpolicy.finetune"]}
def dqn_targets(
    returns: Float[Tensor, "batch"],
    next_online: Float[Tensor, "batch actions"],
    next_target: Float[Tensor, "batch actions"],
    terminated: Bool[Tensor, "batch"],
    discounts: Float[Tensor, "batch"],
) -> Float[Tensor, "batch"]:
    """What each action value should be, by double Q-learning."""
    ### BEGIN SOLUTION
    chosen = next_online.argmax(-1, keepdim=True)
    worth = next_target.gather(-1, chosen).squeeze(-1)
    return (returns + discounts * worth * ~terminated).detach()
    ### END SOLUTION


# %% [markdown] hints="2.7"
# <details><summary>Hint 1: three lines</summary>
#
# The number of the chosen action; its value by the judge; the target.
#
# </details>
# <details><summary>Hint 2: picking one entry a row</summary>
#
# `values.gather(-1, index)` takes from each row the entries that index names. Index needs the same number of
# dimensions: `argmax(-1, keepdim=True)`.
#
# </details>
# <details><summary>Hint 3: shapes</summary>
#
# After gather you have `[batch, 1]`. Squeeze it before you add it to `[batch]`, or you get a square.
#
# </details>

# %% check="2.7"
check("2.7", dqn_targets)

# %% [markdown]
# Now your targets and your exploration train the network. Every few hundred steps the greedy policy plays validation
# episodes, and the best weights are kept. This is the longest cell of the lab.

# %%
dqn_config = dqn.DQNConfig(
    **choose(
        smoke={"iterations": 8, "validation_episodes": 10},
        cpu={"iterations": 40, "enough": 501.0},  # goes on where others would stop, to show the whole way
        gpu={"iterations": 40, "enough": 501.0},
    )
)
trained = dqn.train("CartPole-v1", dqn_config, seed=seed(), targets=dqn_targets, explore=epsilon_greedy)
viz.curves(
    {"greedy, in validation": ([row["steps"] for row in trained.log], [row["return"] for row in trained.log])},
    levels={"the most there is": 500.0}, xlabel="steps of all carts together", ylabel="return",
    alt=f"Return in validation against steps: from {trained.log[0]['return']:.0f} it rises, unsteadily, and the best "
    f"is {max(row['return'] for row in trained.log):.0f}.",
)  # fmt: skip

# %%
untrained = torch.Generator().manual_seed(seed())
coin = lambda observations: torch.randint(2, (len(observations),), generator=untrained)  # noqa: E731
before = control.evaluate(coin, "CartPole-v1", episodes=100, seed=10_000 + seed())
after = control.evaluate(trained.greedy, "CartPole-v1", episodes=100, seed=10_000 + seed())
print(f"100 fresh episodes: a coin {before.mean():.0f}, trained by you {after.mean():.1f} (worst {after.min():.0f})")


# %%
FILMED = choose(smoke=40, cpu=500, gpu=500)
films = [
    viz.episode_frames(act, "CartPole-v1", seed=seed(), every=4, most_steps=FILMED) for act in (coin, trained.greedy)
]
viz.film(viz.side_by_side(films)[:, 120:340], shrink=2, alt="Two carts. The left one is pushed by a coin, and its pole "
         "falls at once; the right one, trained by you, keeps its pole up.")  # fmt: skip

# %% [markdown]
# Does the network *know* what it is doing? A pole that never falls earns 1 for ever, which is worth
# $1/(1-\gamma)$. Below, what the network thought its positions in the replay were worth, while it learnt:

# %%
limit = 1 / (1 - dqn_config.discount)
viz.curves(
    {"mean value of a replayed step": ([row["steps"] for row in trained.log], [row["value"] for row in trained.log])},
    levels={"balancing for ever": limit}, xlabel="steps of all carts together", ylabel="value",
    alt=f"The mean value rises from {trained.log[0]['value']:.0f} to {trained.log[-1]['value']:.0f}; the limit is "
    f"{limit:.0f}.",
)  # fmt: skip

# %% [markdown]
# Nobody told it that number. It grew out of guesses learnt from guesses. No position can be worth more than the dashed
# line: where the curve passes it, you are watching the triad, an overestimate that feeds on itself, and the target
# network that holds it back. Note also how unsteady the return was on the way. A policy that is greedy about estimates
# can change everywhere because one estimate moved a little. The next lab goes another way, and moves the policy
# itself, a little at a time. That is the way which leads to generators.
#
# ## What to take away
#
# - A value is an expected return. Wait for it (Monte Carlo: no bias, much noise) or bootstrap (TD: less noise, biased
#   while it is wrong).
# - `terminated` cuts the future off, `truncated` does not, and a reset is no step at all.
# - Off-policy methods learn about one policy while another plays. Q-learning asks what is best, SARSA what will happen.
# - Approximation, bootstrapping and off-policy learning together may diverge; replay and a target network make them
#   gentle, not safe.
#
# The cell below writes down what happened here.

# %%
record = write_record(
    "02-values",
    {
        "walk_error": {name: dict(zip(map(str, COUNTS), row, strict=True)) for name, row in walk_errors.items()},
        "q_learning_path_return": path_return,
        "sarsa_path_return": careful_return,
        "online_return": {name: row[-100:].mean().item() for name, row in online.items()},
        "triad_error": {name: row[-1] for name, row in triad.items()},
        "cartpole_greedy_return": {"before": before.mean().item(), "after": after.mean().item()},
        "cartpole_worst_episode": after.min().item(),
        "cartpole_steps": trained.log[-1]["steps"],
    },
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/02.json")
