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
# # Lab 16: furniture that stands
#
# A generator of 3D objects is judged by its looks: somebody renders a few views and says which is nicer. Nobody asks
# whether the chair would stand. You will. You are about to meet a small model that builds chairs, tables, lamps and
# shelves out of boxes. They look right at a glance, and two in three fall over or fall apart.
#
# You will write the physics as a reward, mend the model with it in a minute, and try three ways: keeping what stands
# (**RAFT**), comparing within groups (**GRPO**), and learning from pairs (**DPO**), which fails here in a way that is
# worth seeing, and is mended with one term. Then you will ask for the wrong thing and get flat slabs, and ask four
# views whether they show one and the same object, as **Carve3D** does. At last you will learn what people prefer from
# several views, as **DreamReward** does, and **distil** single pieces with a reward.
#
# You need chapter 16, and GRPO from lab 12. Eight exercises, about 90 minutes; the trainings take some minutes more.
# Leave whenever you like: your answers and points are kept.

# %% [markdown]
# <details><summary>You have a CUDA card? The profile <code>gpu</code> adds a section with a real model.</summary>
#
# | profile `gpu` | |
# |---|---|
# | model | Shap-E, text to 3D: `openai/shap-e`, 4 views of 64 x 64 |
# | licence | MIT; not gated |
# | disk | 2.7 GB |
# | VRAM, loading (estimate, unmeasured) | 1.8 GB |
# | VRAM, training (estimate, unmeasured) | 1.6 GB of weights and optimiser; activations come on top, 1.0 GB a sample |
# | trained | a LoRA of rank 16, alpha 32, in float32; the rest is frozen, in bfloat16 but for the renderer |
# | settings | 32 steps of the scheduler's noise levels, eta 1, guidance 3 (this course's choice) |
#
# Nothing fetches the weights but this command:
#
# ```bash
# hf download openai/shap-e --exclude "*fp16*" --exclude "renderer/*"
# ```
#
# Without CUDA, `PIXELPOLICY_PROFILE=gpu` is a **rehearsal**: the same code with a tiny twin of that model, whose
# weights are random. It shows that everything runs; what it builds and scores means nothing. All other sections train
# the small model of this course in every profile.
#
# </details>

# %%
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from IPython.display import Markdown, display
from jaxtyping import Bool, Float, Int
from torch import Tensor

# %%
from pixelpolicy import rewards, viz
from pixelpolicy.course import check
from pixelpolicy.course.results import start_timer, timer, write_record
from pixelpolicy.finetune import GRPO, DiffusionDPO, GRPOConfig, Loop, LoopConfig, Pairs, PreferenceConfig
from pixelpolicy.finetune.batch import grouped
from pixelpolicy.finetune.distillation import DistillationConfig, distill
from pixelpolicy.finetune.preference import best_and_worst
from pixelpolicy.generators import best_of, evaluate, load
from pixelpolicy.generators.small import fit
from pixelpolicy.generators.training import matching_loss
from pixelpolicy.pipelines import shap_e
from pixelpolicy.policies import DenoisingPolicy, cps, ddim_eta, ode
from pixelpolicy.profiles import choose, real_model, rehearsing, seed
from pixelpolicy.rewards.rendering import soft_views
from pixelpolicy.rewards.stability import bearing, raw_tilt
from pixelpolicy.rl import Reward
from pixelpolicy.viz.boxes import Boxes
from pixelpolicy.widgets import BoxViewer
from pixelpolicy.worlds import boxes, furniture

# %% [markdown]
# ## 1. Meet the furniture
#
# A piece is twelve boxes, most of them in use. Each box is ten numbers: whether it is there, where its middle is (x to
# the right, y up, z towards you), half its sizes, and its colour. Lengths are metres, and the ground is y = 0. The
# generator is the class of lab 12 with a token for every box.

# %%
lab_clock = start_timer()
base = load("furniture")
texts, seeds = furniture.evaluation_pairs("test", per_kind=4)
before = base.generate(texts, seeds)
print("pieces:", list(before.shape), "  first box of the first:", before[0, 0].numpy().round(2))

# %% [markdown]
# Turn them with the mouse, or with the arrow keys. Is anything wrong with them? Look at the feet, and for gaps.

# %%
shown = [0, 5, 8, 12]
BoxViewer(
    [Boxes.from_rows(before[row].numpy()) for row in shown],
    names=[texts[row] for row in shown],
    up="y",
    ground=0.0,
    alt="A chair, a table, a lamp and a shelf by the untouched base, on a chequered floor. They can be turned; some "
    "have short or misplaced feet, or parts that hang in the air.",
)


# %%
def sheet(pieces: Tensor, alt: str):
    """Pieces from one side, in a frame that says whether they stand."""
    pictures = boxes.render(pieces.numpy(), (35.0,), size=56, oversample=2)[:, 0]
    stand = furniture.stands(pieces.numpy()).tolist()
    return viz.sample_sheet(pictures, texts, accepted=stand, alt=f"{alt} {sum(stand)} of {len(stand)} stand.")


sheet(before, "Sixteen pieces by the untouched base: chairs, tables, lamps, shelves.")

# %% [markdown]
# A solid green frame: it stands. The verifier knows nothing of chairs. It asks three things: does the piece rest on the
# ground, do its parts hang together, and can it be tilted by six degrees before it falls? We measure it on fixed
# prompts and seeds, with side checks that will matter later, and beside it what luck buys without training.

# %%
PER_KIND = choose(smoke=6, cpu=256, gpu=256)
before_scores = evaluate(base, "test", per_kind=PER_KIND)
best = best_of(base, (1, 4, 12), per_kind=choose(smoke=3, cpu=48, gpu=48))
for count, share in best.items():
    print(f"best of {count:2d}: {share:.2f} stand")
print(f"the base: {before_scores['accuracy']:.3f} stand")

# %% [markdown]
# ## 2. Physics as a reward
#
# When does a thing fall? Draw the outline of all that touches the ground: its **foot**. The thing falls over an edge
# of the foot once its centre of mass has moved across that edge.

# %% [markdown] goal="16.1"
# `foot` holds the corners (x, z) of each piece's foot, anticlockwise, some of them repeated. `centre` is the centre of
# mass (x, y, z), y over the ground. For the edge from corner $a$ to the next corner $b$, the plumb point $p = (x, z)$
# lies inside by
#
# $$d = \frac{(b-a)_1\,(p-a)_2 - (b-a)_2\,(p-a)_1}{|b-a|},$$
#
# and the piece tips over it at the angle whose tangent is $d / y$. Return the least angle over all edges, in degrees.
# An edge of length 0 is none.


# %% exercise={"id": "16.1", "name": "tilt_margin", "title": "How far can it be tilted?", "points": 3, "minutes": 15, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "pixelpolicy.worlds"]}
def tilt_margin(foot: Float[Tensor, "batch corners 2"], centre: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch"]:
    """By how many degrees each piece can be tilted before it falls; negative if it falls by itself."""
    ### BEGIN SOLUTION
    edge = foot.roll(-1, dims=1) - foot
    offset = centre[:, None, [0, 2]] - foot
    length = edge.square().sum(-1).clamp_min(1e-12).sqrt()
    inside = edge[..., 0] * offset[..., 1] - edge[..., 1] * offset[..., 0]
    distance = torch.where(length > 2e-6, inside / length, torch.inf).amin(1)
    return torch.rad2deg(torch.atan2(distance, centre[:, 1]))
    ### END SOLUTION


# %% [markdown] hints="16.1"
# <details><summary>Hint 1: all edges at once</summary>
#
# `foot.roll(-1, dims=1)` puts the next corner in each corner's place, and closes the ring.
#
# </details>
# <details><summary>Hint 2: edges that are none</summary>
#
# Clamp the squared length before the root, or 0/0 spoils the gradient. Then `torch.where` gives such edges the
# distance infinity.
#
# </details>
# <details><summary>Hint 3: the angle</summary>
#
# Take the least distance with `amin(1)`, then `torch.atan2(distance, height)`, which also knows negative distances.
#
# </details>

# %% check="16.1"
check("16.1", tilt_margin)

# %% [markdown] goal="16.2"
# A shade that hangs in the air is no lamp. `touching[i, j]` says whether two boxes touch, `there[i]` whether box i
# exists at all. Return whether all boxes that exist hang together, each by way of others if need be. A piece without a
# box does not.


# %% exercise={"id": "16.2", "name": "hangs_together", "title": "Does it hang together?", "points": 3, "minutes": 12, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "pixelpolicy.worlds"]}
def hangs_together(touching: Bool[Tensor, "batch n n"], there: Bool[Tensor, "batch n"]) -> Bool[Tensor, "batch"]:
    """Whether one can walk from each existing box to each other, over boxes that touch."""
    ### BEGIN SOLUTION
    links = touching & there[:, :, None] & there[:, None, :]
    reached = there & (there.cumsum(1) == 1)
    for _ in range(there.shape[1]):
        reached = reached | (links & reached[:, :, None]).any(1)
    return there.any(1) & (reached == there).all(1)
    ### END SOLUTION


# %% [markdown] hints="16.2"
# <details><summary>Hint 1: spread a stain</summary>
#
# Start with one box that exists. Whatever touches a stained box is stained too. Repeat; at the end, is all stained?
#
# </details>
# <details><summary>Hint 2: the first box</summary>
#
# `there.cumsum(1) == 1`, where `there`, marks the first box that exists.
#
# </details>
# <details><summary>Hint 3: one step</summary>
#
# First keep only links between boxes that exist. A step: `(links & reached[:, :, None]).any(1)`. Twelve steps are
# enough for twelve boxes.
#
# </details>

# %% check="16.2"
check("16.2", hangs_together)


# %% [markdown]
# Your two functions make up the whole verdict, together with one look at the ground. Does it agree with the library's?


# %%
def examine(pieces: Tensor, gap: float = boxes.TOUCH) -> tuple[Tensor, Tensor]:
    """The tilt margin in degrees, and whether a piece hangs together and rests on the ground; by your functions."""
    rows = boxes.checked(pieces.numpy())
    there = torch.from_numpy(boxes.present(rows))
    touching = torch.from_numpy(boxes.gaps(rows) <= gap)
    tilt = torch.where(there.any(1), tilt_margin(*bearing(pieces)), -90.0)
    return tilt, hangs_together(touching, there) & torch.from_numpy(boxes.grounded(rows))


def stands(pieces: Tensor, margin: float = furniture.LEAST_MARGIN, gap: float = boxes.TOUCH) -> Tensor:
    """Your verdict; a greater margin and a smaller gap between parts make it a harder one."""
    tilt, whole = examine(pieces, gap)
    return (tilt >= margin) & whole


pieces = base.generate(*furniture.evaluation_pairs("validation", 16))
agree = (stands(pieces) == torch.from_numpy(furniture.stands(pieces.numpy()))).float().mean().item()
print(f"your verdict and the library's agree on {agree:.0%} of {len(pieces)} pieces")
assert agree > 0.99

# %% [markdown]
# Before anything is trained on a verdict, hold it against data whose answer is known: sound pieces, and spoilt ones.

# %%
rng = np.random.default_rng(seed())
sound = torch.from_numpy(furniture.sample(choose(smoke=40, cpu=400, gpu=400), rng)[1])
spoilt = torch.from_numpy(furniture.sample(len(sound), rng, flawed=True)[1])
accepted = {name: stands(data).float().mean().item() for name, data in (("sound", sound), ("spoilt", spoilt))}
print(f"accepted: {accepted['sound']:.1%} of sound pieces, {accepted['spoilt']:.1%} of spoilt ones")
assert accepted["sound"] >= 0.97 and accepted["spoilt"] <= 0.05

# %% [markdown] goal="16.3"
# A verdict of yes or no is enough where you only keep what is good. To *compare* two pieces that both fall, degrees are
# better. The danger: whatever has no upper end will be driven there. So give each part an end. With $t$ the tilt in
# degrees, $c$ whether it hangs together, $h$ its height as a share of what is usual:
#
# $$r = \tfrac12 \operatorname{clip}(t/9, -1, 1) + c + \tfrac12 \operatorname{clip}\Big(1 - \frac{\max(|h-1| -
# \tfrac14, 0)}{1/4},\, 0,\, 1\Big)$$
#
# Height costs nothing within a quarter of the usual.


# %% exercise={"id": "16.3", "name": "standing_score", "title": "A reward with an end", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "pixelpolicy.worlds"]}
def standing_score(
    tilt: Float[Tensor, "batch"], connected: Bool[Tensor, "batch"], height: Float[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """How well a piece stands, from -0.5 to 2; more tilt than 9 degrees gains nothing."""
    ### BEGIN SOLUTION
    beyond = ((height - 1).abs() - 0.25).clamp_min(0)
    tall = (1 - beyond / 0.25).clamp(0, 1)
    return 0.5 * (tilt / 9).clamp(-1, 1) + connected + 0.5 * tall
    ### END SOLUTION


# %% [markdown] hints="16.3"
# <details><summary>Hint 1: three parts</summary>
#
# Compute each part by itself, then add them with their weights. A truth value counts as 0 or 1.
#
# </details>
# <details><summary>Hint 2: clip</summary>
#
# `Tensor.clamp(low, high)`; for the maximum with 0 alone, `clamp_min(0)`.
#
# </details>
# <details><summary>Hint 3: height</summary>
#
# First how far $h$ is from 1, then less the free quarter and no less than 0, then the fall to 0 over another quarter.
#
# </details>

# %% check="16.3"
check("16.3", standing_score)


# %%
def by_degrees(pieces: Tensor, prompts: list[str]) -> Tensor:
    """Your score of pieces, as a reward wants it."""
    usual = torch.tensor([furniture.true_height(furniture.parse(text)[1]) for text in prompts])
    heights = torch.from_numpy(boxes.height(boxes.checked(pieces.numpy()))).float()
    tilt, whole = examine(pieces)
    return standing_score(tilt, whole, heights / usual)


standing = Reward("standing", by_degrees)

# %% [markdown]
# ## 3. Keep what stands
#
# The simplest method there is: sample, keep what stands, train on it as if it were data, repeat. It is called **RAFT**,
# or rejection sampling, and needs no density at all. One thing wants care: a kind of furniture that seldom stands must
# not be crowded out by one that often does.

# %% [markdown] goal="16.4"
# Weigh samples within their groups: in each group all that stand count alike, the others 0, and the mean weight of a
# group is 1. A group in which nothing stands has weight 0 throughout.


# %% exercise={"id": "16.4", "name": "keep_standing", "title": "Keep what stands", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards"]}
def keep_standing(stands: Bool[Tensor, "batch"], groups: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    """Weights of mean 1 in each group in which something stands."""
    ### BEGIN SOLUTION
    weights = torch.zeros(len(stands))
    for group in groups.unique():
        mine = groups == group
        if stands[mine].any():
            weights[mine] = stands[mine].float() / stands[mine].float().mean()
    return weights
    ### END SOLUTION


# %% [markdown] hints="16.4"
# <details><summary>Hint 1: group by group</summary>
#
# As for GRPO's advantages in lab 12: `groups == group` finds the members, a tensor of zeros takes the weights.
#
# </details>
# <details><summary>Hint 2: mean 1</summary>
#
# Divide by the share of the group that stands.
#
# </details>
# <details><summary>Hint 3: nothing stands</summary>
#
# Then that share is 0. Ask with `.any()` first, and leave the zeros.
#
# </details>

# %% check="16.4"
check("16.4", keep_standing)

# %% [markdown]
# A round: sample groups, judge, keep, and train on what is kept, drawn by your weights. Two habits of good teachers:
# everything kept so far stays in the pool, the base's own good pieces too, which keeps the model from narrowing to its
# favourites. And what is kept stands *with something to spare*, because a copy is never quite as good: two degrees more
# than asked, and parts that touch across 18 millimetres where 30 would be forgiven.

# %%
SAMPLES, GROUP = choose(smoke=96, cpu=2048, gpu=2048), choose(smoke=16, cpu=16, gpu=16)
STEPS = choose(smoke=4, cpu=150, gpu=150)


def gather(student, pool: dict[str, list], number: int, kept, samples: int) -> float:
    """Sample from the model as it is, and put what is kept into the pool; returns the share that stood."""
    rng = np.random.default_rng([seed(), number])
    prompts, groups = grouped(furniture.draw_prompts(samples // GROUP, rng), GROUP)
    pieces = student.generate(prompts, rng.integers(2**40, size=len(prompts)).tolist())
    pool.setdefault("prompts", []).extend(prompts)
    pool.setdefault("latents", []).append(student.codec.encode(pieces))
    pool.setdefault("weights", []).append(keep_standing(kept(pieces, prompts, groups), groups))
    return stands(pieces).float().mean().item()


def with_something_to_spare(pieces: Tensor, prompts: list[str], groups: Tensor) -> Tensor:
    return stands(pieces, margin=8.0, gap=0.018)


# %%
def learn(student, pool: dict[str, list], number: int) -> None:
    """Flow matching on the pool, as on data."""
    random = torch.Generator().manual_seed(1000 * seed() + number)
    weights, latents = torch.cat(pool["weights"]), torch.cat(pool["latents"])
    rows = torch.multinomial(weights, 8 * SAMPLES, replacement=True, generator=random)
    tokens, chosen = student.prompt_encoder.tokens(pool["prompts"])[rows], latents[rows]
    options = {"batch": choose(smoke=16, cpu=96, gpu=96), "dropout": 0.0, "random": random}
    fit(student.transformer, lambda: matching_loss(student, tokens, chosen, **options), STEPS, rate=5e-4, warmup=10,
        decay=0.98)  # fmt: skip


# %%
ROUNDS = choose(smoke=1, cpu=3, gpu=3)
CHECKED = choose(smoke=4, cpu=48, gpu=48)
raft, pool = base.student(), {}
seen = [evaluate(base, "validation", per_kind=CHECKED)]
with timer() as raft_time:
    for number in range(ROUNDS):
        stood = gather(raft, pool, number, with_something_to_spare, SAMPLES)
        learn(raft, pool, number)
        seen.append(evaluate(raft, "validation", per_kind=CHECKED))
        print(f"round {number + 1}: {stood:.2f} of the samples stood; afterwards {seen[-1]['accuracy']:.2f} stand")
print(f"{raft_time.cpu_seconds:.0f} CPU s")

# %%
viz.curves(
    {name: (range(len(seen)), [scores[key] for scores in seen])
     for name, key in (("stands", "accuracy"), ("resembles a true piece", "precision"), ("symmetry", "symmetry"))},
    levels={"best of 4 of the base": best[4]},
    xlabel="rounds of RAFT",
    ylabel="share",
    alt=f"Shares over the rounds of RAFT. What stands rises from {seen[0]['accuracy']:.2f} to "
    f"{seen[-1]['accuracy']:.2f}; precision and symmetry, which nothing asked for, rise too.",
)  # fmt: skip

# %% [markdown]
# Precision and symmetry rise though nothing asked for them. What stands is what was built with care; the base had
# the skill, and the flawed data held it back. The same prompts and the same noise as above:

# %%
after = raft.generate(texts, seeds)
sheet(after, "The same sixteen prompts and noise after RAFT.")

# %%
BoxViewer(
    [Boxes.from_rows(pieces[row].numpy()) for row in shown[:2] for pieces in (before, after)],
    names=[f"{texts[row]}, {when}" for row in shown[:2] for when in ("before", "after")],
    up="y",
    ground=0.0,
    alt="A chair and a table before and after training, side by side; they can be turned.",
)

# %% [markdown]
# ## 4. Compare within groups
#
# GRPO uses the fallen pieces too: it makes their steps less likely. It needs a density, so the sampler draws noise, and
# it needs degrees, so your score is the reward. The KL to the base is its leash, as in lab 12, and it is held five
# times as short: at 0.02 what stands soon resembles no furniture.

# %%
CPS = partial(cps, noise=0.7)
GRPO_SETTINGS = GRPOConfig(
    prompts_per_iteration=choose(smoke=2, cpu=16, gpu=16), group_size=choose(smoke=4, cpu=12, gpu=12),
    trained_steps=3, minibatches=2, kl_weight=0.1, seed=seed(),
)  # fmt: skip


def grpo(reward: Reward, settings: GRPOConfig, iterations: int, name: str, rate: float = 8e-4):
    """A student trained by GRPO; the averaged weights are put in place at the end."""
    student = base.student()
    algorithm = GRPO(DenoisingPolicy(student, CPS, steps=8), reward, furniture.draw_prompts, settings)
    loop = Loop(algorithm, LoopConfig(iterations, learning_rate=rate, warmup_iterations=3, name=name))
    history = loop.run()
    loop.ema.copy_to(loop.parameters)
    return student, history


# %%
with timer() as grpo_time:
    compared, history = grpo(standing, GRPO_SETTINGS, choose(smoke=2, cpu=50, gpu=50), "GRPO")
grpo_scores = evaluate(compared, "test", per_kind=PER_KIND)
viz.curves(
    {"reward of noisy samples": ([r["iteration"] for r in history], [r["reward"] for r in history])},
    xlabel="iteration",
    ylabel="standing score, at most 2",
    alt=f"GRPO's reward over {len(history)} iterations, from {history[0]['reward']:.2f} to "
    f"{history[-1]['reward']:.2f}; afterwards {grpo_scores['accuracy']:.2f} stand.",
)

# %%
print(f"after GRPO {grpo_scores['accuracy']:.3f} stand (base {before_scores['accuracy']:.3f}), and "
      f"{grpo_scores['precision']:.3f} resemble true furniture (base {before_scores['precision']:.3f})")  # fmt: skip

# %% [markdown]
# ## 5. Learn from pairs
#
# People compare better than they score, and so most reward learning for 3D starts from pairs; DreamDPO is one example.
# From each group take the best and the worst piece, and apply Diffusion-DPO of lab 11: match the winner better than the
# base does, the loser worse.

# %%
rng = np.random.default_rng([seed(), 5])
prompts, groups = grouped(furniture.draw_prompts(choose(smoke=8, cpu=160, gpu=160), rng), 8)
pieces = base.generate(prompts, rng.integers(2**40, size=len(prompts)).tolist())
won, lost = best_and_worst(standing(pieces, prompts), groups)
pairs = Pairs([prompts[row] for row in won], base.codec.encode(pieces[won]), base.codec.encode(pieces[lost]))
print(f"{len(pairs)} pairs; {stands(pieces[won]).float().mean():.0%} of winners stand, "
      f"{stands(pieces[lost]).float().mean():.0%} of losers")  # fmt: skip


# %%
def prefer(loss_of, name: str):
    """A student trained by Diffusion-DPO on the pairs with a loss of four matching errors, and its history."""
    student = base.student()
    settings = PreferenceConfig(prompts_per_iteration=choose(smoke=4, cpu=64, gpu=64), minibatches=1, seed=seed())
    algorithm = DiffusionDPO(DenoisingPolicy(student, ode, steps=10), config=settings, pairs=pairs, loss_of=loss_of)
    loop = Loop(algorithm, LoopConfig(choose(smoke=2, cpu=40, gpu=40), learning_rate=3e-4, name=name))
    history = loop.run()
    loop.ema.copy_to(loop.parameters)
    return student, history


# %% [markdown]
# The loss sees four matching errors of a pair: of winner and loser, by the network and by the base. Only the
# *difference* of the two gains counts. So there are two ways to lower it: match the winner better, or match the loser
# worse. Guess which is easier for a network.

# %% [markdown] goal="16.5"
# Write the loss, and mend it in the same breath. With $e_w, e_l$ the errors of winner and loser, $b_w, b_l$ those of
# the base (no gradient), $\sigma$ the logistic function, $\beta$ and $\lambda$ (`anchor`) numbers:
#
# $$L = \operatorname{mean}\Big[-\log \sigma\Big(-\tfrac{\beta}{2}\big[(e_w - b_w) - (e_l - b_l)\big]\Big)\Big] +
# \lambda \tfrac{\beta}{2} \operatorname{mean} \max(e_w - b_w,\, 0)$$
#
# The second term speaks only where a winner is matched *worse* than by the base.


# %% exercise={"id": "16.5", "name": "mended_dpo", "title": "DPO that keeps its winners", "points": 3, "minutes": 12, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "pixelpolicy.worlds"]}
def mended_dpo(
    winner: Float[Tensor, "pairs"],
    loser: Float[Tensor, "pairs"],
    base_winner: Float[Tensor, "pairs"],
    base_loser: Float[Tensor, "pairs"],
    beta: float,
    anchor: float,
) -> Float[Tensor, ""]:
    """Diffusion-DPO of matching errors, with a term that holds the winner."""
    ### BEGIN SOLUTION
    drift = winner - base_winner.detach()
    margin = drift - (loser - base_loser.detach())
    preferred = -torch.nn.functional.logsigmoid(-beta / 2 * margin).mean()
    return preferred + anchor * beta / 2 * drift.clamp_min(0).mean()
    ### END SOLUTION


# %% [markdown] hints="16.5"
# <details><summary>Hint 1: signs</summary>
#
# A small error means likely. The winner's error should fall below the base's: then the bracket is negative, and minus
# $\beta/2$ times it positive.
#
# </details>
# <details><summary>Hint 2: stable</summary>
#
# `torch.nn.functional.logsigmoid` of each pair, then the mean, then the minus.
#
# </details>
# <details><summary>Hint 3: the anchor</summary>
#
# It stands outside the logarithm, and needs only the winner's drift: `clamp_min(0)`, mean, times $\lambda\beta/2$.
#
# </details>

# %% check="16.5"
check("16.5", mended_dpo)

# %%
BETA = 100.0
with timer() as dpo_time:
    plain, plain_log = prefer(partial(mended_dpo, beta=BETA, anchor=0.0), "DPO, plain")
    mended, mended_log = prefer(partial(mended_dpo, beta=BETA, anchor=4.0), "DPO, mended")
dpo_scores = {name: evaluate(m, "test", per_kind=PER_KIND) for name, m in (("plain", plain), ("mended", mended))}
print({name: round(scores["accuracy"], 3) for name, scores in dpo_scores.items()})

# %%
logs = {"plain": plain_log, "mended": mended_log}
viz.curves(
    {f"{who}, {name}": ([r["iteration"] for r in log], [r[f"{who}_change"] for r in log])
     for name, log in logs.items() for who in ("winner", "loser")},
    levels={"the base": 0.0},
    xlabel="iteration",
    ylabel="matching error beyond the base's",
    alt=f"How much worse winners and losers are matched than by the base. Plain DPO ends at "
    f"{plain_log[-1]['winner_change']:+.3f} for winners, {plain_log[-1]['loser_change']:+.3f} for losers; mended DPO "
    f"at {mended_log[-1]['winner_change']:+.3f} and {mended_log[-1]['loser_change']:+.3f}.",
)  # fmt: skip

# %% [markdown]
# In the plain run both curves climb: the loser is pushed away and takes the winner along, because the two are built of
# the same parts. The loss falls all the while. This is **likelihood displacement**. With the anchor the winners stay
# where they were.
#
# ## 6. The flat slab
#
# Now the other classic. The tilt margin is a fine number; why not simply ask for more of it? No end, no height, no
# leash:

# %%
greedy = GRPOConfig(**{**GRPO_SETTINGS.__dict__, "kl_weight": 0.0})
slabs, slab_log = grpo(raw_tilt(), greedy, choose(smoke=2, cpu=25, gpu=25), "raw tilt", rate=1e-3)
slab_scores = evaluate(slabs, "test", per_kind=PER_KIND)
flat = slabs.generate(texts, seeds)
sheet(flat, "Sixteen pieces of the model that was asked for raw tilt: they have become low and broad.")

# %%
keys = ("tilts", "accuracy", "height", "precision")
print("                ", "  ".join(f"{key:>9}" for key in keys))
for name, scores in (("base", before_scores), ("raw tilt", slab_scores)):
    print(f"{name:16}", "  ".join(f"{scores[key]:9.3f}" for key in keys))

# %% [markdown]
# `tilts` is the share that passes the test of tilt, and all that was asked for. `height` is the mean height as a share
# of true furniture, `precision` the share of pieces that resemble any true piece of their kind. Neither was asked for,
# nor was it asked that the parts stay together: broad low plates are the quickest way to more degrees.
#
# ## 7. Do the views agree?
#
# Our generator builds in 3D, so all its views show one object. Most large systems do not: they paint several *pictures*
# of one object, and a second model makes the 3D of them. If the pictures contradict each other, nothing can be made.
# **Carve3D** turns their agreement into a reward. Here is the heart of it: carve away every point that some view sees
# as empty; what is left, the **visual hull**, is looked at again from each side and held against the picture.

# %% [markdown] goal="16.6"
# `silhouettes[b, v]` holds the pixels of a view in a row: 1 where it shows the object, 0 where not, or between.
# `where[v, p]` is the pixel of view v that point p of a grid falls in. The hull of a point is the *least* that any view
# shows there. Seen again, a pixel shows the *largest* hull among its points; 0 if none falls in it. Return, over all
# views and pixels, the sum of the smaller of the two, divided by the sum of the larger.


# %% exercise={"id": "16.6", "name": "hull_agreement", "title": "Carve, and look again", "points": 3, "minutes": 15, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "pixelpolicy.worlds"]}
def hull_agreement(
    silhouettes: Float[Tensor, "batch views pixels"], where: Int[Tensor, "views points"]
) -> Float[Tensor, "batch"]:
    """Intersection over union of the views with those of the solid that they carve."""
    ### BEGIN SOLUTION
    hull = torch.stack([silhouettes[:, v, pixels] for v, pixels in enumerate(where)]).amin(0)
    empty = torch.zeros_like(silhouettes[:, 0])
    rows = [pixels.expand(len(silhouettes), -1) for pixels in where]
    again = torch.stack([empty.scatter_reduce(1, row, hull, "amax") for row in rows], 1)
    smaller, larger = torch.minimum(silhouettes, again), torch.maximum(silhouettes, again)
    return smaller.sum((1, 2)) / larger.sum((1, 2))
    ### END SOLUTION


# %% [markdown] hints="16.6"
# <details><summary>Hint 1: what each view shows of each point</summary>
#
# `silhouettes[:, v, where[v]]` is `[batch, points]`. Stack them over the views, and take the least.
#
# </details>
# <details><summary>Hint 2: back into the pixels</summary>
#
# `zeros.scatter_reduce(1, index, values, "amax")` puts into each pixel the largest of the values with its number. The
# index must have the shape of the values: `expand` it.
#
# </details>
# <details><summary>Hint 3: intersection over union</summary>
#
# `torch.minimum` and `torch.maximum` of the views and the views again, each summed over views and pixels. (The larger
# is always the view itself: do you see why?)
#
# </details>

# %% check="16.6"
check("16.6", hull_agreement)

# %% [markdown]
# Four views of one piece, and four views of four different pieces of the same prompt: what a careless painter of views
# would deliver.

# %%
SIDE = 24
where = torch.from_numpy(boxes.pixels_of_grid(size=SIDE, side=40))
several = [text for text in furniture.trained_prompts() for _ in range(4)]
_, masks = soft_views(raft.generate(several, list(range(len(several)))), size=SIDE)
masks = masks.unflatten(0, (-1, 4))  # prompt, piece, view
single, mixed = masks[:, 0], torch.stack([masks[:, v, v] for v in range(4)], 1)
one, four = hull_agreement(single.flatten(2), where), hull_agreement(mixed.flatten(2), where)
print(f"views of one piece: {one.mean():.2f}; of four different ones: {four.mean():.2f}")

# %% [markdown]
# The score has a gradient. On the contradictory views below, blue pixels are what it would take away and orange what
# it would add: each view is asked to yield to the others.

# %%
wished = mixed[:4].clone().requires_grad_()
hull_agreement(wished.flatten(2), where).sum().backward()
wish = wished.grad / wished.grad.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
tint = torch.stack([wish, torch.zeros_like(wish), -wish], 2).clamp(-1, 1)
shades = (1 - 2 * mixed[:4, :, None]).expand(-1, -1, 3, -1, -1)
viz.sample_sheet(
    torch.cat([shades[:2].flatten(0, 1), tint[:2].flatten(0, 1)]), [f"view {v + 1}" for v in range(4)] * 4, columns=8,
    alt="Above, silhouettes of two sets of four views that do not belong together. Below, the gradient of the "
    "agreement: orange where a view should show more, blue where it should show less.",
)  # fmt: skip

# %% [markdown]
# Beware of it as the *only* reward: four views of the same plain block agree perfectly.
#
# ## 8. What do people prefer?
#
# Nobody holds a level to a picture of a chair. People *compare*: which of the two would you rather have?
# **DreamReward** collects such choices over views from several sides, and fits a reward to them, **Reward3D**. Here
# is its like in small. Our rater is simulated: it has an opinion of standing, colour, resemblance and symmetry, and
# errs where two pieces are nearly alike, by the Bradley-Terry model of lab 08. (Yours could be a person: two pieces a
# question.)

# %% [markdown] goal="16.7"
# The network looks at each view by itself and finds features: `each[b, v, f]`. One verdict must come of several views,
# whatever their order and number. Give the head two summaries, joined along the features, first the *mean* over the
# views, then the *maximum* over the views: one bad side is enough to spoil a chair, and a mean alone would dilute it.


# %% exercise={"id": "16.7", "name": "pool_views", "title": "Several views, one verdict", "points": 2, "minutes": 6, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "pixelpolicy.worlds"]}
def pool_views(each: Float[Tensor, "batch views features"]) -> Float[Tensor, "batch two_features"]:
    """The mean of every feature over the views, then its maximum: ``[batch, 2 * features]``."""
    ### BEGIN SOLUTION
    return torch.cat([each.mean(1), each.amax(1)], 1)
    ### END SOLUTION


# %% [markdown] hints="16.7"
# <details><summary>Hint 1: which axis</summary>
#
# The views are axis 1. Both summaries take it away, and leave `[batch, features]`.
#
# </details>
# <details><summary>Hint 2: mean and maximum</summary>
#
# `Tensor.mean(axis)` and `Tensor.amax(axis)`; the second gives values alone, where `max` gives their places too.
#
# </details>
# <details><summary>Hint 3: join</summary>
#
# `torch.cat([first, second], axis)` along the features, which are now axis 1.
#
# </details>

# %% check="16.7"
check("16.7", pool_views)

# %% [markdown]
# Half of the pairs come from the data, half are the base's own samples: what a reward model has never seen, it cannot
# judge. Some of the base's are held out.

# %%
rater, rng = rewards.Rater(), np.random.default_rng([seed(), 8])
COUNT, HELD = choose(smoke=24, cpu=900, gpu=900), choose(smoke=16, cpu=400, gpu=400)
first, second, asked = rewards.drawn_pairs(COUNT, rng)
by_hand = rewards.compare(first, second, asked, rater, rng)
asked = furniture.draw_prompts(COUNT + HELD, rng)
first, second = (base.generate(asked, rng.integers(2**40, size=len(asked)).tolist()) for _ in range(2))
own = rewards.compare(first[:COUNT], second[:COUNT], asked[:COUNT], rater, rng)
held = rewards.compare(first[COUNT:], second[COUNT:], asked[COUNT:], rater, rng)

# %%
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(seed())
    network = rewards.MultiViewNetwork(pool=pool_views)
won, lost = (torch.cat([rewards.views_of(pieces) for pieces in both])
             for both in ((by_hand.winners, own.winners), (by_hand.losers, own.losers)))  # fmt: skip
rewards.fit_pairs(
    network, won, lost, by_hand.prompts + own.prompts, steps=choose(smoke=10, cpu=300, gpu=300), seed=seed()
)
agreed, agreed_by_one = rewards.held_out_agreement(network, held), rewards.held_out_agreement(network, held, views=[0])
ceiling = rewards.share_won(*(rater.worth(pieces, held.prompts) for pieces in (held.winners, held.losers)))
print(f"agrees with the rater on {agreed:.2f} of {len(held.prompts)} new comparisons ({agreed_by_one:.2f} by one view)")
print(f"knowing the rater's mind, one would agree on {ceiling:.2f}: the rest are the rater's own errors")

# %% [markdown]
# Is it as sure as it may be? Where it says that the first wins with probability 0.8, the first should win eight times
# in ten. Let chance decide which piece of a pair is called the first, and sort the held-out pairs by what it says.

# %%
with torch.no_grad():
    liked, passed = (network(rewards.views_of(p), network.tokens(held.prompts)) for p in (held.winners, held.losers))
swap = torch.from_numpy(rng.random(len(liked)) < 0.5)
said = torch.where(swap, passed - liked, liked - passed).sigmoid()
parts = [part for part in (said * 5).long().clamp(max=4).unique()]
bins = [((said * 5).long().clamp(max=4) == part) for part in parts]
claims, wins = [said[b].mean().item() for b in bins], [(~swap[b]).float().mean().item() for b in bins]
error = sum(b.float().mean().item() * abs(c - w) for b, c, w in zip(bins, claims, wins, strict=True))
viz.curves(
    {"it wins": (claims, wins), "as sure as it may be": ([0, 1], [0, 1])}, xlabel="probability said",
    ylabel="share of wins", alt=f"How often the first piece wins where the network says so with a probability, in "
    f"{len(bins)} bins: {', '.join(f'{c:.2f} said, {w:.2f} won' for c, w in zip(claims, wins, strict=True))}. "
    f"Calibration error {error:.2f}.",
)  # fmt: skip

# %% [markdown]
# A curve flatter than the diagonal is a network too sure of itself. Its *order* may still be of use, and keeping the
# best of a group needs no more than order. So: your RAFT, but a quarter of each group is kept by the learned score.
# What stands is asked of nobody.

# %%
learned = rewards.multiview_reward(network)


def liked_most(pieces: Tensor, prompts: list[str], groups: Tensor) -> Tensor:
    """The quarter of each group that the network likes most."""
    with torch.no_grad():
        values = torch.cat([learned(p, prompts[128 * n : 128 * n + 128]) for n, p in enumerate(pieces.split(128))])
    bars = torch.stack([values[groups == group].quantile(0.75) for group in groups])
    return values >= bars


# %%
liked_model, liked_pool = base.student(), {}
for number in range(choose(smoke=1, cpu=2, gpu=2)):
    gather(liked_model, liked_pool, 80 + number, liked_most, SAMPLES // 2)
    learn(liked_model, liked_pool, 80 + number)
liked_scores = evaluate(liked_model, "test", per_kind=PER_KIND)
judged_on, judged_seeds = furniture.evaluation_pairs("test", per_kind=choose(smoke=4, cpu=64, gpu=64))
worth = {name: rater.worth(model.generate(judged_on, judged_seeds), judged_on).mean().item()
         for name, model in (("base", base), ("learned from views", liked_model), ("RAFT", raft))}  # fmt: skip
for name, scores in (("base", before_scores), ("learned from views", liked_scores)):
    print(f"{name:20} stands {scores['accuracy']:.3f}  height {scores['height']:.3f}  precision "
          f"{scores['precision']:.3f}  worth to the rater {worth[name]:.2f}")  # fmt: skip

# %% [markdown]
# Standing gains less than under your verdict, which asks for nothing else. A reward can be no better than what its views
# show, and no better than its rater.
#
# ## 9. Distil one piece
#
# DreamReward has no generator to train. It has a *single object*, whose own numbers are optimised while the generator
# stays frozen: **score distillation**. Add noise to the object, ask the generator what it sees in it, and move the
# object a little towards that guess. Again and again, with less and less noise. The optimiser is Adam, the gradient is
# a *pull*: the object minus the guess.
#
# How does a reward get in? DreamReward adds its gradient. Yours has none, for a piece stands or it does not. But
# there is a way that asks for none, **RewardSDS**: try several noises. Each leads the generator to another guess. Let
# the reward judge the guesses, and follow the best.

# %% [markdown] goal="16.8"
# `x0[b]` are the objects, `x1[k, b]` the noises tried, `velocity[k, b]` the generator's answer at
# $x_\sigma = (1-\sigma)\,x_0 + \sigma\,x_1$, and `values[k, b]` what the reward thinks of each guess. The guess is
# $x_\sigma - \sigma v$, so that the pull $x_0 - (x_\sigma - \sigma v)$ is
#
# $$g = \sigma\,\big(v - (x_1 - x_0)\big).$$
#
# Return the pull of the best try of each object. `sigma[b]` is one number an object; objects have any number of axes.
# No gradient passes: the generator is asked, not differentiated.


# %% exercise={"id": "16.8", "name": "picked_pull", "title": "Follow the best guess", "points": 3, "minutes": 12, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "pixelpolicy.worlds"]}
def picked_pull(
    x0: Float[Tensor, "batch *shape"],
    x1: Float[Tensor, "tries batch *shape"],
    sigma: Float[Tensor, "batch"],
    velocity: Float[Tensor, "tries batch *shape"],
    values: Float[Tensor, "tries batch"],
) -> Float[Tensor, "batch *shape"]:
    """From each object's best guess to the object: the gradient of score distillation with a choice of noises."""
    ### BEGIN SOLUTION
    level = sigma.reshape(-1, *[1] * (x0.ndim - 1))
    pulls = level * (velocity - (x1 - x0))
    return pulls[values.argmax(0), torch.arange(len(x0))].detach()
    ### END SOLUTION


# %% [markdown] hints="16.8"
# <details><summary>Hint 1: shapes</summary>
#
# `sigma.reshape(-1, 1, 1)` would do for objects of two axes; `*[1] * (x0.ndim - 1)` makes as many ones as are needed.
# `x1 - x0` already has the tries in front.
#
# </details>
# <details><summary>Hint 2: each its own</summary>
#
# `values.argmax(0)` is the number of the best try of each object.
#
# </details>
# <details><summary>Hint 3: pick</summary>
#
# `pulls[best, torch.arange(len(x0))]` takes pair by pair: try `best[0]` of object 0, `best[1]` of object 1. Then
# detach.
#
# </details>

# %% check="16.8"
check("16.8", picked_pull)

# %% [markdown]
# The same objects and the same first noise, distilled in four ways: plainly; plainly with four times the steps, which
# costs what four tries cost; with your score picking among four noises; and as DreamReward does it, with the gradient
# of the learned reward added to the pull.

# %%
OBJECTS, PULLS = choose(smoke=4, cpu=48, gpu=48), choose(smoke=3, cpu=100, gpu=100)
wanted = furniture.draw_prompts(OBJECTS, np.random.default_rng([seed(), 9]))
start = torch.randn(OBJECTS, *base.latent_shape, generator=torch.Generator().manual_seed(1000 + seed()))
distilled, made = {}, {}
for name, reward, settings in (
    ("plain", None, {}),
    ("plain, 4 x the steps", None, {"steps": 4 * PULLS}),
    ("best of 4 noises", standing, {"tries": 4}),
    ("learned, by gradient", learned, {"reward_weight": 0.05}),
):
    config = DistillationConfig(**{"steps": PULLS, "seed": seed()} | settings)
    latents, _ = distill(base, wanted, start, reward=reward, config=config, gradient_of=picked_pull)
    made[name] = base.decode(latents)
    scores = furniture.measure(made[name].numpy(), wanted)
    with torch.no_grad():
        scores["learned"] = learned(made[name], wanted).mean().item()
    scores["worth"] = rater.worth(made[name], wanted).mean().item()
    distilled[name] = {key: scores[key] for key in ("accuracy", "height", "precision", "learned", "worth")}

# %%
head = ["| | stands | height | precision | learned score | worth to the rater |", "|---" * 6 + "|"]
rows = [f"| {name} | " + " | ".join(f"{v:.3f}" for v in scores.values()) + " |" for name, scores in distilled.items()]
Markdown("\n".join(head + rows))

# %%
pieces = torch.cat([made[name][:6] for name in ("plain", "best of 4 noises", "learned, by gradient")])
ok = furniture.stands(pieces.numpy()).tolist()
viz.sample_sheet(
    boxes.render(pieces.numpy(), (35.0,), size=56, oversample=2)[:, 0], wanted[:6] * 3, accepted=ok, columns=6,
    alt=f"Six distilled pieces in three ways. Plainly, {sum(ok[:6])} stand; by the best of four noises, "
    f"{sum(ok[6:12])}; by the gradient of the learned reward, {sum(ok[12:])}.",
)  # fmt: skip

# %% [markdown]
# Picking keeps to what the generator itself guessed: whatever it follows is furniture, and far more of it stands than
# the same work buys in plain steps. The gradient of the learned reward lifts the learned score most of all, and little
# of that arrives: compare how much of it stands, and whether the rater, whose mind the network was to learn, likes the
# pieces any better. The network is asked about pieces such as nobody ever compared, and is as sure of itself as ever.
# DreamReward's network has seen 25,000 comparisons by experts, ours 1,800.
#
# ## 10. A real model
#
# Under the profile `gpu` Shap-E is trained by GRPO as well. Its sampler is Heun's, which has no noise; its ancestral
# step is DDIM's with eta 1, whose density you know from lab 09. It is judged by *rendered views*: how red is a red
# chair from its worst side? That worst side comes out of your own `pool_views`, whose maximum of what is not red is
# it.

# %%
if real_model():
    giant = replace(shap_e.load_for_profile(), guidance=3.0)

    def red_all_round(views: Tensor, prompts: list[str]) -> Tensor:
        """Redness ``[batch]`` of views ``[batch, views, 3, side, side]``: half the mean, half the worst side."""
        each = rewards.redness()(views.flatten(0, 1), [text for text in prompts for _ in range(views.shape[1])])
        return -pool_views(-each.view(len(views), -1, 1)).mean(1)

    giant_policy = DenoisingPolicy(
        giant.student(), partial(ddim_eta, noise=1.0), steps=4 if rehearsing() else 32, micro_batch=2
    )
    algorithm = GRPO(
        giant_policy, Reward("red all round", red_all_round), lambda count, rng: ["a red chair"] * count,
        GRPOConfig(prompts_per_iteration=1, group_size=2 if rehearsing() else 12, trained_steps=2, minibatches=1,
                   clip_range=1e-4, kl_weight=0.04, seed=seed()),
    )  # fmt: skip
    print(Loop(algorithm, LoopConfig(2 if rehearsing() else 50, learning_rate=1e-4, name="Shap-E")).run()[-1])

# %% [markdown]
# ## 11. What has changed
#
# All on the same fixed prompts and seeds. **Diversity** is how differently the pieces of one prompt that stand are
# built. **Height** and **precision** are the checks that no reward was trained on.

# %%
after_scores = evaluate(raft, "test", per_kind=PER_KIND)
table = {"base": before_scores, "RAFT": after_scores, "GRPO": grpo_scores, "DPO, plain": dpo_scores["plain"],
         "DPO, mended": dpo_scores["mended"], "learned from views": liked_scores, "raw tilt": slab_scores}  # fmt: skip
columns = {"stands": "accuracy", "diversity": "diversity", "height": "height", "precision": "precision",
           "symmetry": "symmetry"}  # fmt: skip
lines = [f"| {name} | " + " | ".join(f"{s[key]:.3f}" for key in columns.values()) + " |" for name, s in table.items()]
lines += [f"| *base, best of {count}* | *{share:.3f}* | | | | |" for count, share in best.items()]
head = [f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
Markdown("\n".join(head + lines))

# %% [markdown]
# Take a piece home: a mesh file that Blender, MeshLab and most viewers open.

# %%
standing_rows = [row for row in range(len(texts)) if stands(after[row : row + 1]).item()] or [0]
home = f"{texts[standing_rows[0]].replace(' ', '-')}.glb"
path = viz.save_mesh(Boxes.from_rows(after[standing_rows[0]].numpy()), home, up="y")
display(Markdown(f"Written: `{path.name}`, {path.stat().st_size} bytes."))

# %% [markdown]
# ## What to take away
#
# - Physics makes a reward of a few lines, and it needs no gradient.
# - Keep the base's own good pieces in the pool: what narrows a model is feeding it on itself.
# - A loss that looks at differences alone can win by ruining both sides. Watch the winner.
# - A reward learned from views knows what its rater could see, errs like one, and is only sure of what it has met.
# - A reward without gradient can still choose: among samples, or among noises.
# - Give a reward an end, and look at something that it did not ask for.
#
# The cell below writes down what happened here.


# %%
def change(key: str) -> dict[str, float]:
    scores = {"before": before_scores[key], "after": after_scores[key]}
    return {when: 0.0 if np.isnan(value) else value for when, value in scores.items()}


record = write_record(
    "16-three-d",
    ({"rehearsal": int(rehearsing())} if real_model() else {})
    | {key: change(key) for key in ("accuracy", "diversity", "height", "precision", "symmetry")}
    | {f"accuracy_{kind}": change(f"accuracy_{kind}") for kind in furniture.KINDS}
    | {
        "best_of_n": {str(count): share for count, share in best.items()},
        "grpo": {key: grpo_scores[key] for key in ("accuracy", "height", "precision")},
        "dpo": {name: scores["accuracy"] for name, scores in dpo_scores.items()},
        "slab": {key: slab_scores[key] for key in ("tilts", "height", "precision")},
        "agreement": {"held out": agreed, "one view": agreed_by_one, "ceiling": ceiling, "calibration error": error},
        "learned": {key: liked_scores[key] for key in ("accuracy", "height", "precision")},
        "worth": worth,
        "distilled": distilled,
        "views": {"of one": one.mean().item(), "of several": four.mean().item()},
        "training_seconds": raft_time.seconds,
        "training_cpu_seconds": raft_time.cpu_seconds,
    },
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/16.json")
