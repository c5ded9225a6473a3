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
# # Lab 14: pictures as tokens, and a plan before the picture
#
# So far your generators moved noise. This one *writes*: a transformer as language models have it puts down one token
# after another. First come the words of a **layout**, "red circle c5, blue square f3"; then come the 64 **codes** of
# the picture. A token is an action, its probability stands in the softmax, and the loss of lab 12 trains it unchanged.
#
# You will write the six pieces that are new, reward the plan and the picture, and find out which reward does what.
#
# You need labs 04 and 12. Six exercises, about 60 minutes; the training takes a few minutes more.

# %% [markdown]
# <details><summary>You have a CUDA card? The profile <code>gpu</code> lets the same functions of yours train a real
# model.</summary>
#
# | profile `gpu` | |
# |---|---|
# | model | Janus-Pro 1B, 576 codes a picture of 384 x 384: `deepseek-community/Janus-Pro-1B` |
# | licence | its page says MIT; its authors speak of a DeepSeek Model License for weights too: read both before use |
# | disk | 4.2 GB |
# | VRAM, loading (estimate, unmeasured) | 4.3 GB |
# | VRAM, training (estimate, unmeasured) | 4.9 GB of weights and optimiser; activations come on top, 2.3 GB a sequence |
# | trained | a LoRA of rank 32, alpha 64, on the language model, in float32; the rest is frozen, in bfloat16 |
# | a 24 GB card, which `gpu` is set for | `micro_batch` 6, 8 prompts x 12 attempts, no guidance |
# | settings | this course's choice: no run of these has been seen |
#
# Nothing fetches the weights but this command:
#
# ```bash
# hf download deepseek-community/Janus-Pro-1B
# ```
#
# Without CUDA, `PIXELPOLICY_PROFILE=gpu` is a **rehearsal**: the same code with a tiny twin of that model, whose
# weights are random. It shows that everything runs; what it writes and scores means nothing.
#
# </details>

# %%
import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from IPython.display import Markdown
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

# %%
from pixelpolicy import viz
from pixelpolicy.course import check, recorded
from pixelpolicy.course.results import start_timer, timer, write_record
from pixelpolicy.finetune import GRPOConfig, Loop, LoopConfig, TokenGRPO
from pixelpolicy.generators import best_of, load
from pixelpolicy.pipelines import janus
from pixelpolicy.policies import TokenPolicy, sequence_kl
from pixelpolicy.profiles import choose, real_model, rehearsing, seed
from pixelpolicy.rewards import layout_agreement, of_pictures, shapes_dense
from pixelpolicy.worlds import layouts, shapes

# %% [markdown]
# ## 1. Meet the writer
#
# `load("shapes-tokens")` gives two standard parts: `GPT2LMHeadModel`, tiny, and a vector-quantised autoencoder,
# `VQModel`. What it writes for a prompt is read back below: above each picture stands its layout. The places are those
# of a chessboard: columns a to h from the left, rows 1 to 8 from the top. A solid green frame: the verifier accepts
# the picture for the *prompt*.

# %%
lab_clock = start_timer()
device = "cuda" if torch.cuda.is_available() else "cpu"
base = janus.load_for_profile() if real_model() else load("shapes-tokens").to(device)
policy = TokenPolicy(base, micro_batch=choose(smoke=24, cpu=96, gpu=6))

# %%
texts, seeds = shapes.evaluation_pairs("test", per_kind=choose(smoke=2, cpu=6, gpu=6))
sheet = policy.rollout(texts, seeds=torch.tensor(seeds))


def show(rollout, what: str):
    """Drawings under their prompts and layouts."""
    pictures = torch.stack([drawing.picture for drawing in rollout.samples])
    accepted = [verdict.strict for verdict in shapes.verify(pictures.numpy(), rollout.prompts)]
    said = ["; ".join(map(str, drawing.layout)) for drawing in rollout.samples]
    captions = [f"{text}: {layout}" for text, layout in zip(rollout.prompts, said, strict=True)]
    alt = f"{what}: {len(accepted)} pictures under prompt and layout; {sum(accepted)} match their prompts."
    return viz.sample_sheet(pictures, captions, columns=6, accepted=accepted, alt=alt)


show(sheet, "The untouched base")

# %% [markdown]
# It plans in whole words. Its teachers were careless: in half of its lessons the scene had one object too few for its
# caption, a colour that leaked, or a relation turned round; and some pictures differed from their layout.
# So two things go wrong: the layout says something else than the prompt, or the picture shows something else than the
# layout.


# %%
def measure(writer, split: str, per_kind: int, **sampling) -> dict[str, float]:
    """Accuracy and diversity of pictures; how often the layout agrees with the prompt, and the picture with it."""
    texts, seeds = shapes.evaluation_pairs(split, per_kind)
    rollout = TokenPolicy(writer, micro_batch=policy.micro_batch, **sampling).rollout(texts, seeds=torch.tensor(seeds))
    scores = shapes.measure(torch.stack([d.picture for d in rollout.samples]).numpy(), texts)
    right = [layouts.agreement(d.layout, text) == 1 for d, text in zip(rollout.samples, texts, strict=True)]
    followed = [layouts.followed(drawing) for drawing in rollout.samples]
    return scores | {"layout_right": float(np.mean(right)), "layout_followed": float(np.mean(followed))}


PER_KIND = choose(smoke=2, cpu=128, gpu=64)
before = {split: measure(base, split, PER_KIND) for split in ("test", "held-out")}
best = best_of(base, (1, 4, 12), per_kind=choose(smoke=1, cpu=32, gpu=8))
print({key: round(before["test"][key], 3) for key in ("accuracy", "layout_right", "layout_followed")})
print("best of N:", {count: round(accuracy, 2) for count, accuracy in best.items()})

# %% [markdown]
# ## 2. From a picture to tokens, and back
#
# An encoder turns a picture into 8 x 8 vectors of a few numbers. To make tokens of them, each is replaced by the
# nearest of the codes in a *codebook*, and the number of that code is the token. A decoder draws the picture from the
# codes.

# %% [markdown] goal="14.1"
# Write the replacement. `latents` are `[batch, dim, height, width]`, the codebook is `[codes, dim]`. Return the
# quantised latents, in the shape of the latents, and the numbers of the codes, `[batch, height, width]`.
#
# A choice has no gradient, and an encoder behind it would never learn. The trick is to lie: forwards the value is that
# of the code $e$, backwards the gradient passes **straight through** to the latents $z$, as if nothing had been
# replaced. The codes get no gradient here.
#
# $$q = z + \operatorname{stop}(e - z)$$


# %% exercise={"id": "14.1", "name": "quantise", "title": "The nearest code", "points": 3, "minutes": 12, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.generators", "pixelpolicy.rewards", "pixelpolicy.worlds.layouts"]}
def quantise(
    latents: Float[Tensor, "batch dim height width"], codebook: Float[Tensor, "codes dim"]
) -> tuple[Float[Tensor, "batch dim height width"], Int[Tensor, "batch height width"]]:
    """Each vector replaced by its nearest code, gradient straight through; and the numbers of the codes."""
    ### BEGIN SOLUTION
    vectors = latents.permute(0, 2, 3, 1)
    gaps = (vectors[..., None, :] - codebook).square().sum(-1)
    codes = gaps.argmin(-1)
    nearest = codebook[codes].permute(0, 3, 1, 2)
    return latents + (nearest - latents).detach(), codes
    ### END SOLUTION


# %% [markdown] hints="14.1"
# <details><summary>Hint 1: where a vector is</summary>
#
# The numbers of one place lie along dimension 1. `permute(0, 2, 3, 1)` brings them to the end.
#
# </details>
# <details><summary>Hint 2: all distances at once</summary>
#
# Give the vectors one more dimension, `vectors[..., None, :]`, and subtract the codebook: that makes one row a code.
# Square, sum over the numbers, and take the `argmin` over the codes.
#
# </details>
# <details><summary>Hint 3: the lie</summary>
#
# `codebook[codes]` has the numbers at the end: bring them back to dimension 1. Then add the *detached* difference to
# the latents.
#
# </details>

# %% check="14.1"
check("14.1", quantise)

# %% [markdown]
# Try it on the real codebook. First row: pictures; second row: the same, made of 64 codes each.

# %%
vq = load("shapes-tokens").vq
rng = np.random.default_rng(0)
some = [str(text) for text in rng.choice(shapes.prompts("count"), 6)]
pictures = torch.from_numpy(shapes.draw([shapes.scene(text, rng) for text in some]))
with torch.no_grad():
    quantised, codes = quantise(vq.encode(pictures).latents, vq.quantize.embedding.weight)
    rebuilt = vq.decode(quantised, force_not_quantize=True).sample.clamp(-1, 1)
viz.sample_sheet(
    torch.cat([pictures, rebuilt]),
    [*some, *(f"{len(code.unique())} different codes" for code in codes)],
    columns=6,
    alt="Six pictures of shapes, and below them the same six made of codes: hardly a difference.",
)

# %% [markdown]
# And the gradient? Shake the encoder, so that pictures come out wrong, and let it learn again *through* your choice of
# codes. Codebook and decoder stay as they are: all that the encoder hears comes straight through.

# %%
shaken = copy.deepcopy(vq)
torch.manual_seed(seed())
for parameter in shaken.encoder.parameters():
    parameter.data *= 1 + 0.2 * torch.randn_like(parameter)
    parameter.requires_grad_(True)
optimizer = torch.optim.Adam(shaken.encoder.parameters(), 5e-4)
errors = []
for _ in range(choose(smoke=3, cpu=40, gpu=40)):
    drawn = [shapes.scene(str(text), rng) for text in rng.choice(shapes.prompts(), 24)]
    pictures = torch.from_numpy(shapes.draw(drawn))
    quantised, _ = quantise(shaken.encode(pictures).latents, shaken.quantize.embedding.weight)
    error = F.mse_loss(shaken.decode(quantised, force_not_quantize=True).sample, pictures)
    optimizer.zero_grad()
    error.backward()
    optimizer.step()
    errors.append(error.item())
print(f"error of the pictures: {errors[0]:.4f} -> {errors[-1]:.4f}")

# %% [markdown]
# ## 3. Tokens as actions
#
# For the policy, the **state** is what is written so far, and the **action** is the next token. In a rollout,
# `states[:, 0]` is -1, the empty page, and `states[:, t + 1]` is token `t`. One pass of the transformer over whole
# sequences gives `logits`, one row a state.

# %% [markdown] goal="14.2"
# Here is where every second implementation goes wrong first. The logits in row `t` were computed from the states up to
# `t`. They speak of the token that comes *next*, `states[:, t + 1]`. The last row speaks of a token behind the end,
# which does not exist.
#
# Return the log-probability of each written token, `[batch, steps]`, from logits `[batch, steps+1, choices]` and states
# `[batch, steps+1]`. A logit of $-\infty$ is a choice that the grammar forbids.


# %% exercise={"id": "14.2", "name": "token_log_probs", "title": "Log-probabilities of tokens", "points": 3, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.generators", "pixelpolicy.rewards", "pixelpolicy.worlds.layouts"]}
def token_log_probs(
    logits: Float[Tensor, "batch steps+1 choices"], states: Int[Tensor, "batch steps+1"]
) -> Float[Tensor, "batch steps"]:
    """The log-probability of each token that was written, from the logits one place before it."""
    ### BEGIN SOLUTION
    log_probs = logits[:, :-1].log_softmax(-1)
    return log_probs.gather(-1, states[:, 1:, None]).squeeze(-1)
    ### END SOLUTION


# %% [markdown] hints="14.2"
# <details><summary>Hint 1: the shift</summary>
#
# Leave out the last row of the logits and the first state. What is left has the same length and fits together.
#
# </details>
# <details><summary>Hint 2: from logits to probabilities</summary>
#
# `log_softmax` over the last dimension, before you pick.
#
# </details>
# <details><summary>Hint 3: picking</summary>
#
# `gather(-1, index)` picks one entry of each row; the index needs a last dimension of length 1, which goes again with
# `squeeze(-1)`.
#
# </details>

# %% check="14.2"
check("14.2", token_log_probs)

# %% [markdown] goal="14.3"
# How is the next token drawn? Often not from the softmax as it is. A **temperature** $T$ divides the logits; below 1
# it makes the likely likelier. **Nucleus** sampling then keeps the fewest choices whose probabilities add up to at
# least `top_p`, counted from the likeliest down, and forbids the rest.
#
# Return *logits*: divided by the temperature, with $-\infty$ where a choice is left out. The choice that brings the sum
# to `top_p` belongs to the nucleus, and the likeliest always stays. At `top_p` 1 nothing is left out: mind that sums of
# rounded numbers reach 1 too early.
#
# Why logits, and not simply a token? Because the policy must know the distribution that it *really* draws from: the
# log-probability that goes into the ratio is that of the narrowed one.


# %% exercise={"id": "14.3", "name": "nucleus", "title": "Temperature and nucleus", "points": 3, "minutes": 14, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.generators", "pixelpolicy.rewards", "pixelpolicy.worlds.layouts"]}
def nucleus(
    logits: Float[Tensor, "*batch choices"], temperature: float, top_p: float
) -> Float[Tensor, "*batch choices"]:
    """Logits of what is drawn from: cooled by the temperature, the unlikely tail at -inf."""
    ### BEGIN SOLUTION
    logits = logits / temperature
    probabilities, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    likelier = probabilities.cumsum(-1) - probabilities
    left_out = torch.zeros_like(likelier, dtype=torch.bool).scatter(-1, order, likelier >= top_p)
    return logits.masked_fill(left_out, float("-inf")) if top_p < 1 else logits
    ### END SOLUTION


# %% [markdown] hints="14.3"
# <details><summary>Hint 1: who is in</summary>
#
# A choice stays if the choices likelier than it do *not yet* add up to `top_p`. That keeps the likeliest for free: the
# sum before it is 0.
#
# </details>
# <details><summary>Hint 2: sums before each</summary>
#
# Sort the probabilities downwards. `cumsum` counts each choice itself too; take it away again.
#
# </details>
# <details><summary>Hint 3: back to the old order</summary>
#
# `sort` also gives the `order`. `torch.zeros_like(mask).scatter(-1, order, mask)` puts the sorted mask back in its
# place; `masked_fill` does the rest.
#
# </details>

# %% check="14.3"
check("14.3", nucleus)

# %% [markdown]
# With these two the ratio can be tested. Replay the sheet through the same weights, narrowed or not: before any update
# it must be **exactly** 1. The third line shows the trap: draw from the nucleus, but score by the whole softmax.

# %%
yours = replace(policy, log_prob_of=token_log_probs, narrow=nucleus, micro_batch=len(texts))
narrowed = replace(yours, temperature=0.9, top_p=0.9)
for name, writing, scoring in (
    ("as it is", yours, yours),
    ("temperature 0.9, top_p 0.9", narrowed, narrowed),
    ("drawn from that, scored by the softmax", narrowed, yours),
):
    written = writing.rollout(texts, seeds=torch.tensor(seeds))
    with torch.no_grad():
        ratios = (scoring.log_probs(written) - written.log_probs).exp()
    print(f"{name}: smallest and largest ratio {ratios.min().item():.3g} {ratios.max().item():.3g}")
    assert scoring is not writing or (ratios == 1).all()

# %% [markdown]
# Would a lower temperature alone mend the base? It makes the likeliest answer likelier, right or wrong. Look at plan and
# hand apart.

# %%
cooler = {value: measure(base, "test", PER_KIND // 2, temperature=value) for value in (1.0, 0.7, 0.4)}
COLUMNS = {"accuracy": "accuracy", "layout_right": "layout right", "layout_followed": "layout followed"}
COLUMNS |= {"diversity": "diversity"}
lines = [f"| {t} | " + " | ".join(f"{scores[key]:.3f}" for key in COLUMNS) + " |" for t, scores in cooler.items()]
Markdown("\n".join([f"| temperature | {' | '.join(COLUMNS.values())} |", "|---|---|---|---|---|", *lines]))

# %% [markdown]
# The plans gain, and the pictures lose more. Where an object begins is uncertain by a cell, and at each cell alone the
# ground is the likelier code: a cool writer puts the object off until it is too late. So something else is needed.

# %% [markdown] goal="14.4"
# The leash. At each place the policy has a distribution over all choices, and so has the base. For Gaussians the
# divergence was a formula; here it is a sum, and still exact: no token needs to be drawn for it.
#
# $$\mathrm{KL} = \sum_a p(a)\,\big[\log p(a) - \log p_{\text{ref}}(a)\big]$$
#
# Both get logits `[..., choices]`; return one value a row. Choices that the grammar forbids have logit $-\infty$ in
# both and must add nothing, **neither to the value nor to the gradient**.


# %% exercise={"id": "14.4", "name": "token_kl", "title": "KL of tokens", "points": 3, "minutes": 10, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.generators", "pixelpolicy.rewards", "pixelpolicy.worlds.layouts"]}
def token_kl(
    logits: Float[Tensor, "*batch choices"], reference: Float[Tensor, "*batch choices"]
) -> Float[Tensor, "*batch"]:
    """KL of softmax(logits) to softmax(reference), exactly, over all choices."""
    ### BEGIN SOLUTION
    forbidden = logits == float("-inf")
    log_p, log_q = logits.log_softmax(-1), reference.log_softmax(-1)
    gap = log_p.masked_fill(forbidden, 0.0) - log_q.masked_fill(forbidden, 0.0)
    return (log_p.exp() * gap).sum(-1)
    ### END SOLUTION


# %% [markdown] hints="14.4"
# <details><summary>Hint 1: two log_softmax</summary>
#
# Normalise both. The weights are your own probabilities, `log_p.exp()`.
#
# </details>
# <details><summary>Hint 2: nan</summary>
#
# $-\infty$ minus $-\infty$ is no number, and 0 times it is none either. Fill both logarithms with 0 at the forbidden
# choices *before* you subtract.
#
# </details>
# <details><summary>Hint 3: putting it together</summary>
#
# `masked_fill(forbidden, 0.0)` on both, subtract, times the probabilities, sum over the last dimension.
#
# </details>

# %% check="14.4"
check("14.4", token_kl)

# %% [markdown]
# ## 4. What to reward
#
# The finished picture is judged as ever, by the dense verifier. But this model says beforehand what it is going to
# draw, and a plan can be checked without looking at a single pixel. **T2I-R1** and **GoT-R1** reward both.

# %% [markdown] goal="14.5"
# `planned` and `wanted` are lists of pairs such as `("red", "circle")`: what the layout says, and what the prompt asks.
# `holds` tells whether the relation that was asked for holds in the layout (True where none was asked).
#
# Return the share of objects that were asked for *and* planned, of the longer of the two lists: nothing may be missing,
# and nothing may be too much. Each planned object answers for one wanted object. If the relation does not hold, give
# half.


# %% exercise={"id": "14.5", "name": "layout_share", "title": "The reward of a layout", "points": 3, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.generators", "pixelpolicy.rewards", "pixelpolicy.worlds.layouts"]}
def layout_share(planned: Sequence[tuple[str, str]], wanted: Sequence[tuple[str, str]], holds: bool) -> float:
    """How much of what was asked a layout says, from 0 to 1."""
    ### BEGIN SOLUTION
    left = list(wanted)
    for pair in planned:
        if pair in left:
            left.remove(pair)
    share = (len(wanted) - len(left)) / max(len(planned), len(wanted))
    return share if holds else share / 2
    ### END SOLUTION


# %% [markdown] hints="14.5"
# <details><summary>Hint 1: three circles are three</summary>
#
# Sets will not do: they forget how many there are. Strike objects off a *copy* of the list of what is wanted.
#
# </details>
# <details><summary>Hint 2: the share of what</summary>
#
# Divide by `max(len(planned), len(wanted))`. Dividing by one of the lists alone makes the other kind of fault free.
#
# </details>
# <details><summary>Hint 3: the relation</summary>
#
# Halve at the end, and only where `holds` is False.
#
# </details>

# %% check="14.5"
check("14.5", layout_share)

# %% [markdown]
# Verify a reward on clean data before you trust it. Scenes that were drawn for their prompts must get 1; scenes for
# which the caption is wrong must not.

# %%
rng = np.random.default_rng(1)
drawn = [str(rng.choice(shapes.prompts())) for _ in range(300)]
for flawed in (False, True):
    planned = [layouts.layout_of(shapes.scene(text, rng, flawed=flawed)) for text in drawn]
    full = np.mean([layouts.agreement(p, t, layout_share) == 1 for p, t in zip(planned, drawn, strict=True)])
    print(f"{'wrong captions' if flawed else 'clean data'}: {full:.1%} of the layouts get 1")

# %% [markdown] goal="14.6"
# A sample has one advantage and many tokens. Which token gets how much? GRPO first takes the mean over the tokens of
# each sample, and then the mean over the samples, so that each *sample* counts alike.
#
# The number of tokens that were a choice differs: behind the last object of a layout the grammar leaves no choice, and
# what nobody chose deserves neither praise nor blame. `chosen` `[batch, steps]` says which tokens were a choice. The
# objective takes a plain mean over all `batch x steps` entries. So return advantages `[batch, steps]`: 0 where nothing
# was chosen, and elsewhere weighted so that **the mean over a sample's row is the sample's advantage**.


# %% exercise={"id": "14.6", "name": "token_advantages", "title": "The advantage of a token", "points": 2, "minutes": 8, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.generators", "pixelpolicy.rewards", "pixelpolicy.worlds.layouts"]}
def token_advantages(
    advantages: Float[Tensor, "batch"], chosen: Bool[Tensor, "batch steps"]
) -> Float[Tensor, "batch steps"]:
    """A sample's advantage at each token it chose; samples count alike however many those are."""
    ### BEGIN SOLUTION
    steps, counts = chosen.shape[1], chosen.sum(1)
    return chosen * (advantages * steps / counts)[:, None]
    ### END SOLUTION


# %% [markdown] hints="14.6"
# <details><summary>Hint 1: shapes</summary>
#
# `advantages[:, None]` is one column; multiplied with `chosen` it fills the rows, with 0 where nothing was chosen.
#
# </details>
# <details><summary>Hint 2: the weight</summary>
#
# Of `steps` entries only so many are not 0. Their mean over the whole row comes out too small by that share.
#
# </details>
# <details><summary>Hint 3: the factor</summary>
#
# Multiply by `steps / counts`, with `counts` the number of chosen tokens of each row.
#
# </details>

# %% check="14.6"
check("14.6", token_advantages)

# %% [markdown]
# ## 5. Train it
#
# `TokenGRPO` is the `GRPO` of lab 12: the same groups, the same advantages within a group, the same clipped objective.
# What differs is that one pass over a sequence gives the losses of all its steps. The rest is yours. Clip range 0.2 is
# that of lab 04: a token's probability is no average over dimensions. The leash is dear, 0.1: on a longer one the plans
# for a prompt soon look alike.

# %%
settings = GRPOConfig(
    prompts_per_iteration=choose(smoke=2, cpu=16, gpu=8),
    group_size=choose(smoke=4, cpu=12, gpu=12),
    trained_steps=10_000,  # all of them
    minibatches=2,
    clip_range=0.2,
    kl_weight=0.1,
    seed=seed(),
)
RATE = choose(smoke=7e-4, cpu=7e-4, gpu=1e-4)


def trainer(reward, iterations: int, name: str) -> Loop:
    """A student of the base with your functions, and the loop that trains it for a reward."""
    student = replace(yours, generator=base.student(), micro_batch=policy.micro_batch)
    pieces = {"kl_of": token_kl, "spread": token_advantages}
    algorithm = TokenGRPO(student, reward, shapes.draw_prompts, settings, **pieces)
    return Loop(algorithm, LoopConfig(iterations, RATE, warmup_iterations=2, cooldown_iterations=8, name=name))


# %%
EVERY = choose(smoke=1, cpu=5, gpu=10)


def watch(loop: Loop, metrics: dict[str, float]) -> None:
    """Now and then, look at the averaged weights with the strict verifier, on prompts kept for that."""
    if loop.iteration % EVERY == 0:
        with loop.averaged_weights():
            scores = measure(loop.algorithm.policy.generator, "validation", choose(smoke=1, cpu=48, gpu=16))
        metrics |= {key: scores[key] for key in ("accuracy", "diversity", "layout_right", "layout_followed")}


plan, picture = layout_agreement(layout_share), of_pictures(shapes_dense())
loop = trainer(0.5 * plan + picture, choose(smoke=2, cpu=20, gpu=100), "both")
with timer() as training:
    history = loop.run([watch])
print(f"{training.seconds:.0f} s, {training.cpu_seconds:.0f} CPU s for {len(history)} iterations")

# %%
seen = [row for row in history if "accuracy" in row]
x = [row["iteration"] for row in history]
viz.curves(
    {
        "layout (reward)": (x, [row["reward/layout"] for row in history]),
        "picture (reward)": (x, [row["reward/dense"] for row in history]),
        "accuracy (strict)": ([row["iteration"] for row in seen], [row["accuracy"] for row in seen]),
    },
    levels={"base": before["test"]["accuracy"], "base, best of 4": best[4]},
    xlabel="iteration",
    ylabel="share",
    alt=f"Rewards of layout and picture over {len(history)} iterations, and strict accuracy up to "
    f"{seen[-1]['accuracy']:.2f}, beside the base and its best of four.",
)

# %% [markdown]
# ## 6. Which reward did it?
#
# Take one of the two away, and train as briefly each time. `layout_right` says how often the plan is what was asked;
# `layout_followed`, how often the picture is what was planned. Nothing was trained on the latter.

# %%
SHORT = choose(smoke=1, cpu=10, gpu=30)
ablation = {"base": {key: before["test"][key] for key in ("accuracy", "layout_right", "layout_followed")}}
for name, reward in {"layout alone": plan, "picture alone": picture, "both": 0.5 * plan + picture}.items():
    run = trainer(reward, SHORT, name)
    run.run()
    with run.averaged_weights():
        ablation[name] = measure(run.algorithm.policy.generator, "test", PER_KIND // 2)
rows = [
    f"| {name} | {s['layout_right']:.3f} | {s['layout_followed']:.3f} | {s['accuracy']:.3f} |"
    for name, s in ablation.items()
]
Markdown("\n".join(["| reward | layout right | layout followed | accuracy |", "|---|---|---|---|", *rows]))

# %% [markdown]
# Read it column by column. A reward of the plan alone cannot see the hand. A reward of the picture alone reaches the
# plan only through the picture: a good plan that was badly drawn counts as bad, and the plan is mended more slowly. Do
# not make much of small gaps in the last column: of so few pictures it is uncertain by some 0.03.
#
# ## 7. What has changed
#
# The same prompts and the same random numbers as at the start. Only the weights differ.

# %%
student = loop.algorithm.policy.generator
with loop.averaged_weights():
    after_sheet = replace(policy, generator=student).rollout(texts, seeds=torch.tensor(seeds))
    after = {split: measure(student, split, PER_KIND) for split in ("test", "held-out")}
    some = [text for kind in shapes.KINDS for text in shapes.trained_prompts(kind)[:6]]
    kl = sequence_kl(loop.algorithm.policy, policy, some, torch.arange(len(some))).mean().item()
show(after_sheet, "After training")

# %%
names = {kind: f"accuracy_{kind}" for kind in shapes.KINDS} | {"**all**": "accuracy", "diversity": "diversity"}
names |= {"layout says what was asked": "layout_right", "picture follows the layout": "layout_followed"}
old, new = before["test"], after["test"]
lines = [f"| {label} | {old[key]:.3f} | {new[key]:.3f} |" for label, key in names.items()]
held = (before["held-out"]["accuracy"], after["held-out"]["accuracy"])
lines += [f"| held-out prompts | {held[0]:.3f} | {held[1]:.3f} |", f"| KL to the base | 0 | {kl:.1f} nats |"]
lines += [f"| *base, best of {count}* | *{accuracy:.3f}* | |" for count, accuracy in best.items()]
Markdown("\n".join(["| | before | after |", "|---|---|---|", *lines]))

# %% [markdown]
# Look at *best of N*. The base knows the right answer and gives it now and then; training makes it more usual. What it
# never wrote it could not have been praised for.
#
# ## 8. Clinic
#
# **"The log-probabilities of my sampler and of my trainer differ in the sixth digit."** They should: one wrote token by
# token, with keys and values kept, the other reads the sequence at once, and sums in another order. Do not mix them.
# `TokenPolicy.rollout` scores what it wrote by the pass that the trainer uses, so that the ratio begins at 1.

# %%
with torch.no_grad():
    draft, gaps = base.begin(sheet.prompts), []
    whole = token_log_probs(base.logits(sheet.prompts, sheet.states[:, 1:]), sheet.states.to(base.device))
    for step in range(sheet.log_probs.shape[1]):
        token = sheet.states[:, step + 1].to(base.device)
        gaps.append(draft.logits.log_softmax(-1).gather(-1, token[:, None]).squeeze(1) - whole[:, step])
        draft.append(token)
print(f"largest gap between writing and reading: {torch.stack(gaps).abs().max().item():.1e}")

# %% [markdown]
# ## 9. The long run
#
# The recorded long run shows where it leads: the same functions, more iterations. Its log and its weights (the
# difference to the base, in half precision) come with the course; they are of the small model under `gpu` too.

# %%
long = recorded.records("14-autoregressive-long")
runs = {f"seed {run['seed']}": recorded.history("14-autoregressive-long", run["seed"]) for run in long}
logs = {name: [row for row in log if "accuracy" in row] for name, log in runs.items()}
viz.curves(
    {name: ([row["iteration"] for row in log], [row["accuracy"] for row in log]) for name, log in logs.items()},
    levels={"base": long[0]["metrics"]["accuracy"]["before"]},
    xlabel="iteration",
    ylabel="strict accuracy (validation)",
    alt="Strict accuracy of the recorded long runs over their iterations, one line a seed, beside the base.",
)

# %%
for run in long:
    accuracy, spread = run["metrics"]["accuracy"], run["metrics"]["diversity"]
    print(
        f"seed {run['seed']}: {run['cpu_seconds'] / 60:.0f} CPU minutes, accuracy {accuracy['before']:.3f} -> "
        f"{accuracy['after']:.3f}, diversity {spread['before']:.3f} -> {spread['after']:.3f}"
    )

# %% [markdown]
# ## What to take away
#
# - A token is an action, its log-probability is in the softmax: mind the shift, and score what you really drew from.
# - The loss does not know that it writes pictures. Only the log-probability, the leash and the spread are new.
# - A model that plans can be rewarded for its plan. Each reward can mend only what it sees.
#
# The cell below writes down what happened here.


# %%
def change(key: str, split: str = "test") -> dict[str, float]:
    """A score before and after; where no two accepted pictures share a prompt there is no diversity: 0."""
    scores = {"before": before[split][key], "after": after[split][key]}
    return {when: 0.0 if np.isnan(value) else value for when, value in scores.items()}


record = write_record(
    "14-autoregressive",
    ({"rehearsal": int(rehearsing())} if real_model() else {})
    | {
        "accuracy": change("accuracy"),
        "accuracy_held_out": change("accuracy", "held-out"),
        **{f"accuracy_{kind}": change(f"accuracy_{kind}") for kind in shapes.KINDS},
        "diversity": change("diversity"),
        "layout_right": change("layout_right"),
        "layout_followed": change("layout_followed"),
        "kl_nats": {"before": 0.0, "after": kl},
        "best_of_n": {str(count): accuracy for count, accuracy in best.items()},
        "temperature": {str(value): scores["accuracy"] for value, scores in cooler.items()},
        "ablation": {name: scores["accuracy"] for name, scores in ablation.items()},
        "training_seconds": training.seconds,
    },
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/14.json")
