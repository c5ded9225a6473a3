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
# # Lab 08: what do you want, and who says so?
#
# The labs to come all do the same: a generator draws, somebody calls out a number, and the generator becomes what the
# number asks for. So before you train anything, look hard at the numbers. Who calls them out? What do they see? And
# what would a picture look like that gets the highest number of all?
#
# You will build six kinds of reward, from the bytes of a file to a network that learnt from *your* clicks. Each is
# measured on clean data first. Then you play the optimiser: you drive three of them to the absurd, with a check
# beside each that was not driven, and watch where the two part.
#
# Eight exercises, most of them a few lines, about 85 minutes. Chapter 08 is the text beside it.

# %% [markdown]
# With a CUDA card, the profile `gpu` lets every reward of this lab judge a real model's pictures in section 9:
#
# | profile `gpu` | |
# |---|---|
# | model | Stable Diffusion 3.5 medium, 512 x 512 pixels: `stabilityai/stable-diffusion-3.5-medium` |
# | licence | Stability AI Community License; gated: accept it on the model's page, then `hf auth login` |
# | disk | 16.3 GB |
# | VRAM, loading (estimate, unmeasured) | 16.4 GB |
# | trained | nothing: it is judged |
#
# Nothing fetches the weights but this command:
#
# ```bash
# hf download stabilityai/stable-diffusion-3.5-medium --exclude "*fp16*" --exclude "sd3.5_medium*" \
#     --exclude "text_encoders/*" --exclude "vae copy/*" --exclude "*.png"
# ```
#
# Without CUDA, `PIXELPOLICY_PROFILE=gpu` is a **rehearsal**: the same code with a tiny twin of that model, whose
# weights are random. It shows that everything runs; what it draws means nothing.

# %%
import io
from collections.abc import Callable

import numpy as np
import torch
from IPython.display import Markdown, display
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

# %%
from pixelpolicy import rewards, viz
from pixelpolicy.atlas.data import load as literature
from pixelpolicy.course import check
from pixelpolicy.course.files import course_root
from pixelpolicy.course.results import start_timer, write_record
from pixelpolicy.generators import load
from pixelpolicy.pipelines import sd3
from pixelpolicy.profiles import choose, real_model, rehearsing, seed
from pixelpolicy.rewards import image_text
from pixelpolicy.rewards.proxy import near_prompt
from pixelpolicy.rewards.reading import read
from pixelpolicy.viz.figures import COLOURS
from pixelpolicy.viz.reward_map import reward_map
from pixelpolicy.widgets import PairLabeller
from pixelpolicy.worlds import shapes, words

# %% [markdown]
# ## 1. A number for each picture
#
# Here is what the small text-to-image model of this course draws when it is asked for coloured shapes. You will sort
# these pictures again and again, by one reward after another.

# %%
lab_clock = start_timer()
rng, stream = np.random.default_rng([8, seed()]), torch.Generator().manual_seed(seed())
base = load("shapes")
prompts, seeds = shapes.evaluation_pairs("validation", per_kind=choose(smoke=4, cpu=32, gpu=64))
pictures = base.generate(prompts, seeds)
accepted = rewards.shapes_strict()(pictures, prompts).bool()
few = torch.arange(0, len(prompts), len(prompts) // 16)[:16]
viz.sample_sheet(
    pictures[few],
    [prompts[i] for i in few],
    alt="Sixteen pictures of coloured shapes on a dark ground, each under its prompt; some show a wrong colour, shape, "
    "number or place.",
)

# %% [markdown] goal="8.1"
# A reward is a function of pictures and prompts. Everything downstream (advantages, gradients, logs) relies on three
# promises: it returns **one** number a picture, the number is **finite**, and it does not depend on the company the
# picture keeps. A reward that breaks a promise should stop the run, loudly and by name; a silent NaN turns a night of
# training to dust.
#
# Rewards are also mixed. In a weighted sum $\sum_k w_k r_k$ the parts must stay visible, or you will never know
# *which* of them went up. `terms` lists `(weight, name, reward)`. Return the total, with its gradient if there is one,
# and each part **without** its weight, by name. Raise `ValueError` with the name of a reward that breaks a promise.


# %% exercise={"id": "8.1", "name": "combine", "title": "The contract of a reward", "points": 2, "minutes": 10, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.rewards"]}
def combine(
    terms: list[tuple[float, str, Callable]], samples: Tensor, prompts: list[str]
) -> tuple[Float[Tensor, "batch"], dict[str, Float[Tensor, "batch"]]]:
    """The weighted sum of rewards, and each of them by its name; ValueError where one breaks its promise."""
    ### BEGIN SOLUTION
    parts, total = {}, torch.zeros(len(prompts))
    for weight, name, reward in terms:
        values = reward(samples, prompts)
        if values.shape != (len(prompts),) or not values.isfinite().all():
            raise ValueError(f"{name} did not return one finite number a sample")
        parts[name] = values
        total = total + weight * values
    return total, parts
    ### END SOLUTION


# %% [markdown] hints="8.1"
# <details><summary>Hint 1: how often to ask</summary>
#
# Each reward is called once, with all samples and all prompts. A second call may cost a second of somebody's time.
#
# </details>
# <details><summary>Hint 2: what to test</summary>
#
# The shape must be `(len(prompts),)`: `[batch, 1]` and a single number are both wrong. `Tensor.isfinite` knows NaN and
# infinity.
#
# </details>
# <details><summary>Hint 3: putting it together</summary>
#
# Begin with zeros, one a prompt. For each term: ask, test, keep the values under the name, then add weight times
# values. Do not add in place, and do not detach.
#
# </details>

# %% check="8.1"
check("8.1", combine)

# %% [markdown]
# In the library this is the class `Reward`, which adds and scales: `0.5 * a + 0.5 * b` is a reward again. Yours does
# the same with the first two rewards of this lab, both of which look at colours only.

# %%
red, colours = rewards.redness(), rewards.prompt_colours()
total, parts = combine([(2.0, "redness", red), (0.5, "colours", colours)], pictures, prompts)
assert torch.allclose(total, (2.0 * red + 0.5 * colours)(pictures, prompts))
{name: round(values.mean().item(), 3) for name, values in parts.items()}


# %%
def best_and_worst(values: Tensor, name: str, each: int = 8) -> viz.Picture:
    """The pictures with the highest values above, those with the lowest below; frames are the verifier's verdict."""
    each = min(each, len(values) // 2)
    order = values.argsort(descending=True, stable=True)
    chosen = torch.cat([order[:each], order[-each:]])
    verdicts, high, low = accepted[chosen], values[order[0]], values[order[-1]]
    return viz.sample_sheet(
        pictures[chosen],
        [f"{values[i]:.2f}: {prompts[i]}" for i in chosen],
        columns=each,
        accepted=verdicts.tolist(),
        alt=f"Pictures sorted by {name}. Above the {each} highest, from {high:.2f} on, of which the verifier accepts "
        f"{int(verdicts[:each].sum())}; below the {each} lowest, down to {low:.2f}, of which it accepts "
        f"{int(verdicts[each:].sum())}.",
    )


# %% [markdown]
# ## 2. Rules that measure

# %% [markdown] goal="8.2"
# The simplest rewards measure something, and ask nobody. The paper that made diffusion models a subject of
# reinforcement learning, DDPO, began with this one: how many kilobytes (of 1,000 bytes) does the picture take as a
# JPEG? Write it for one picture `[3, height, width]` in [-1, 1]. A JPEG takes whole numbers from 0 to 255, in the
# order height, width, colour.


# %% exercise={"id": "8.2", "name": "kilobytes", "title": "Bytes as a reward", "points": 2, "minutes": 10, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.rewards"]}
def kilobytes(picture: Float[Tensor, "3 height width"], quality: int = 95) -> float:
    """The size of a picture in [-1, 1] as a JPEG of this quality, in units of 1,000 bytes."""
    ### BEGIN SOLUTION
    levels = ((picture.detach() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    file = io.BytesIO()
    Image.fromarray(levels.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return len(file.getvalue()) / 1000
    ### END SOLUTION


# %% [markdown] hints="8.2"
# <details><summary>Hint 1: a file in memory</summary>
#
# `io.BytesIO()` is a file that never touches the disk. `Image.save` writes into it if you name the format.
#
# </details>
# <details><summary>Hint 2: from [-1, 1] to bytes</summary>
#
# -1 becomes 0, and 1 becomes 255. Round before you cast, since a cast cuts off; and clamp, since 256 would become 0.
#
# </details>
# <details><summary>Hint 3: the rest</summary>
#
# `permute(1, 2, 0)` puts the colours last, `Image.fromarray` takes the array. The size is `len(file.getvalue())`.
#
# </details>

# %% check="8.2"
check("8.2", kilobytes)

# %%
sizes = torch.tensor([kilobytes(picture) for picture in pictures])
best_and_worst(-sizes, "small files")

# %% [markdown]
# Small files are pictures with little in them. Nobody who asked for *four green triangles* wants that, and still it is
# a perfect reward to practise with: exact, fast, and so plainly not what we want that you cannot fool yourself.

# %% [markdown]
# ## 3. A rule that checks
#
# The verifier of this world *looks*: it finds the objects, names their colours and shapes, draws what it found, and
# accepts a picture only if the drawing agrees with the picture and with the prompt. A reward must be tested on clean
# data before it judges anything: a wrong constant in it would be learnt faithfully.

# %%
TRUE = choose(smoke=60, cpu=1000, gpu=1000)
asked = shapes.draw_prompts(TRUE, rng)
clean = torch.from_numpy(shapes.draw([shapes.scene(text, rng) for text in asked]))
verifier = rewards.shapes_strict()(clean, asked).mean().item()
wrong = rewards.shapes_strict()(clean, [near_prompt(text, rng) for text in asked]).mean().item()
print(f"true pictures accepted: {verifier:.3f}; the same under another, similar prompt: {wrong:.3f}")

# %% [markdown] goal="8.3"
# So we have one judge to trust in this small world, and may ask how far any *other* reward agrees with it. Take an
# accepted picture and a rejected one at random. How often does the reward give more to the accepted one? That share is
# the **area under the curve** (AUC): 1 is full agreement, 0.5 a coin, below 0.5 the reward prefers what is wrong.
# Equal values count one half. It asks only for the order, so a reward in bytes and one in [0, 1] can be compared.


# %% exercise={"id": "8.3", "name": "area_under_curve", "title": "How often the better one gets more", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.rewards", "sklearn", "scipy"]}
def area_under_curve(values: Float[Tensor, "batch"], accepted: Bool[Tensor, "batch"]) -> float:
    """How often an accepted sample has a higher value than a rejected one; ties count one half."""
    ### BEGIN SOLUTION
    gaps = values[accepted][:, None] - values[~accepted][None, :]
    return ((gaps > 0).double() + 0.5 * (gaps == 0).double()).mean().item()
    ### END SOLUTION


# %% [markdown] hints="8.3"
# <details><summary>Hint 1: which pairs</summary>
#
# Only pairs of one accepted and one rejected sample. Two accepted ones have nothing to say.
#
# </details>
# <details><summary>Hint 2: all of them at once</summary>
#
# A column minus a row is a table of all differences: `a[:, None] - b[None, :]`.
#
# </details>
# <details><summary>Hint 3: the average</summary>
#
# A positive difference counts 1, a difference of 0 counts one half. Average over the whole table.
#
# </details>

# %% check="8.3"
check("8.3", area_under_curve)

# %%
judges = {"small files": -sizes, "redness": parts["redness"], "colours": parts["colours"]}
judges["dense verifier"] = rewards.shapes_dense()(pictures, prompts)
{name: round(area_under_curve(values, accepted), 3) for name, values in judges.items()}

# %% [markdown]
# The dense verifier gives credit for each part that is right. It agrees with the strict one by its making. `colours`
# is a rule of thumb: which share of the coloured pixels has a colour that was asked for? It is blind to shapes and
# numbers, and still far better than nothing. Here are pictures with which it is wholly satisfied, and the verifier is
# not:

# %%
content = ((parts["colours"] > 0.99) & ~accepted).nonzero()[:8, 0]
viz.sample_sheet(
    pictures[content],
    [f"{parts['colours'][i]:.2f}: {prompts[i]}" for i in content],
    accepted=accepted[content].tolist(),
    alt=f"{len(content)} pictures whose pixels all have a colour of the prompt, and whose shapes, numbers or places "
    "are wrong.",
)

# %% [markdown]
# ## 4. A reader

# %% [markdown] goal="8.4"
# For text in pictures there are machines that read. Flow-GRPO rewards a model by how near the text that an OCR engine
# reads is to the text that was asked for. *Near* is counted in **edits**: the least number of letters to insert,
# delete or replace (Levenshtein's distance). From *CAT* to *CART* it is 1, to *ACT* it is 2. The score is
#
# $$1 - \frac{\text{edits}(\text{read}, \text{word})}{\max(\text{length of read}, \text{length of word})},$$
#
# 1 if every letter is right, 0 if none is. Letter case and spaces do not count. The distance grows letter by letter:
# to get from the first $i$ letters of one to the first $j$ of the other, either delete, or insert, or replace the last
# letter (for nothing where it is the same), and take the cheapest.


# %% exercise={"id": "8.4", "name": "text_score", "title": "How many letters are right", "points": 3, "minutes": 15, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.rewards", "difflib", "rapidfuzz", "Levenshtein"]}
def text_score(read: str, word: str) -> float:
    """1 less the edits from what was read to the word, over the length of the longer; case and spaces do not count."""
    ### BEGIN SOLUTION
    a, b = ("".join(text.split()).casefold() for text in (read, word))
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        above, row = row, [i]
        for j, other in enumerate(b, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (letter != other)))
    return 1 - row[-1] / max(len(a), len(b))
    ### END SOLUTION


# %% [markdown] hints="8.4"
# <details><summary>Hint 1: before you count</summary>
#
# `"".join(text.split()).casefold()` takes spaces and case away. The word is never empty; what was read may be.
#
# </details>
# <details><summary>Hint 2: a table</summary>
#
# Row i, column j holds the edits from the first i letters read to the first j of the word. The first row is 0, 1, 2,
# ...: insert them all. The first column likewise: delete them all.
#
# </details>
# <details><summary>Hint 3: one cell</summary>
#
# The least of: the cell above plus 1, the cell to the left plus 1, the cell above and to the left plus 0 or 1. You need
# only the row above, not the whole table. The answer is the last cell of the last row.
#
# </details>

# %% check="8.4"
check("8.4", text_score)

# %% [markdown]
# The reader is the recogniser of a real OCR engine, rapidocr. Clean data first: words in clear print. There is a
# **second reader** too, an older model of other making. Keep it in mind; it is never trained against.

# %%
written = words.draw_prompts(choose(smoke=8, cpu=300, gpu=300), rng)
print_out = torch.from_numpy(words.draw(written, rng))
exact = {}
for reader in ("first", "second"):
    texts = read(print_out, reader)
    scores = [text_score(text, words.parse(prompt)) for text, prompt in zip(texts, written, strict=True)]
    exact[reader] = np.mean(np.array(scores) == 1)
    print(
        f"{reader} reader: {exact[reader]:.3f} of {len(texts)} words without a fault, mean score {np.mean(scores):.3f}"
    )

# %%
texts = read(print_out[:4])
viz.sample_sheet(
    print_out[:4],
    [f"read: {text}" for text in texts],
    columns=4,
    size=1.9,
    alt="Four words in clear print on coloured grounds, each under what the first reader read: " + ", ".join(texts),
)

# %% [markdown]
# ## 5. Pictures and words in one space

# %% [markdown] goal="8.5"
# A verifier needs a world in which everything can be checked. For *a cosy kitchen at dawn* nobody can write one. CLIP's
# answer: let one network turn the picture into a vector, another the prompt, and train the two until a picture and its
# caption point the same way. The reward is the cosine of the angle between them. It takes any prompt.
#
# We build a small relative from parts that exist. EfficientNet, which has seen ImageNet, turns a picture into 1,280
# features $x$. MiniLM, a sentence encoder, turns a caption into a vector $y$. What is missing is a bridge: a matrix
# $W$ with $x W \approx y$. **Ridge regression** has it in closed form,
#
# $$W = \arg\min_W \lVert XW - Y \rVert^2 + \lambda \lVert W \rVert^2 = (X^\top X + \lambda I)^{-1} X^\top Y .$$
#
# The $\lambda$ is what makes it work with fewer pictures than features. Solve the linear system; do not invert.


# %% exercise={"id": "8.5", "name": "ridge", "title": "A bridge between two networks", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.rewards", "sklearn", "scipy"]}
def ridge(
    features: Float[Tensor, "samples inputs"], targets: Float[Tensor, "samples outputs"], strength: float
) -> Float[Tensor, "inputs outputs"]:
    """The weights that map features to targets with the least squared error plus strength times their own square."""
    ### BEGIN SOLUTION
    gram = features.T @ features + strength * torch.eye(features.shape[1], dtype=features.dtype)
    return torch.linalg.solve(gram, features.T @ targets)
    ### END SOLUTION


# %% [markdown] hints="8.5"
# <details><summary>Hint 1: shapes</summary>
#
# `features.T @ features` is `[inputs, inputs]`, `features.T @ targets` is `[inputs, outputs]`.
#
# </details>
# <details><summary>Hint 2: where the strength goes</summary>
#
# On the diagonal of the square matrix: add it times `torch.eye`, in the dtype of the features.
#
# </details>
# <details><summary>Hint 3: the last line</summary>
#
# `torch.linalg.solve(A, B)` is the X for which A X = B.
#
# </details>

# %% check="8.5"
check("8.5", ridge)

# %% [markdown] goal="8.6"
# How good is such a bridge? By **retrieval**: among all captions, is a picture's own the nearest? `pictures[i]` and
# `texts[i]` belong together. The share of pictures whose own caption is among the `within` nearest by cosine is called
# recall at `within`.


# %% exercise={"id": "8.6", "name": "recall_at", "title": "Is its own caption the nearest?", "points": 2, "minutes": 10, "difficulty": 2, "forbidden": ["pixelpolicy.rl", "pixelpolicy.rewards", "sklearn", "scipy"]}
def recall_at(pictures: Float[Tensor, "n width"], texts: Float[Tensor, "n width"], within: int) -> float:
    """The share of pictures whose own text, that of the same row, is among the ``within`` nearest by cosine."""
    ### BEGIN SOLUTION
    pictures = pictures / pictures.norm(dim=1, keepdim=True)
    texts = texts / texts.norm(dim=1, keepdim=True)
    nearest = (pictures @ texts.T).topk(within, dim=1).indices
    own = torch.arange(len(pictures))[:, None]
    return (nearest == own).any(dim=1).double().mean().item()
    ### END SOLUTION


# %% [markdown] hints="8.6"
# <details><summary>Hint 1: cosine</summary>
#
# Divide every row of both tables by its length. Then the cosines of all with all are one matrix product.
#
# </details>
# <details><summary>Hint 2: the nearest</summary>
#
# `Tensor.topk(within, dim=1).indices` gives, for each picture, the numbers of the texts with the largest cosines.
#
# </details>
# <details><summary>Hint 3: counting</summary>
#
# Picture i is a hit if i is among its indices: compare with a column `arange(n)[:, None]`, then `any` along the row.
#
# </details>

# %% check="8.6"
check("8.6", recall_at)

# %% [markdown]
# The course ships bridges that were fitted, by this formula, to more than a thousand emoji of one vendor and their
# names. The test is hard: 150 concepts that no fit has seen, in the drawing style of *another* vendor. The control
# shuffles the captions. Blind guessing would find 1 in 150.

# %%
EMOJI = choose(smoke=10, cpu=150, gpu=150)
emoji = image_text.held_out_emoji()
drawn = {vendor: image_text.embed_pictures(emoji.pictures[vendor][:EMOJI], "fluent") for vendor in image_text.VENDORS}
named = image_text.embed_texts(list(emoji.captions[:EMOJI]), "fluent")
recall = recall_at(drawn["noto"], named, 1)
shuffles = [named[torch.randperm(EMOJI, generator=stream)] for _ in range(200)]
control = float(np.mean([recall_at(drawn["noto"], shuffled, 1) for shuffled in shuffles]))
print(f"recall@1 of {EMOJI}: {recall:.3f} (its own vendor's style {recall_at(drawn['fluent'], named, 1):.3f})")
print(f"recall@5 {recall_at(drawn['noto'], named, 5):.3f}; control, captions shuffled: {control:.4f}")

# %%
nearest = (drawn["noto"] @ named.T).argmax(1)
viz.sample_sheet(
    emoji.pictures["noto"][:8],
    [f"{emoji.captions[i]}; found: {emoji.captions[nearest[i]]}" for i in range(8)],
    accepted=[bool(nearest[i] == i) for i in range(8)],
    alt="Eight held-out emoji, each under its name and the name found nearest; "
    f"{int((nearest[:8] == torch.arange(8)).sum())} of 8 are right.",
)

# %% [markdown]
# Some wrong names are near misses: that is what such a reward is made of. Now use your `ridge` for our own world, on
# clean pictures and their prompts, and ask the question that matters. Show it two pictures, one true and one with a
# single fault. Does the true one get the higher cosine?

# %%
SCENES = choose(smoke=40, cpu=600, gpu=2000)
captions = shapes.draw_prompts(SCENES, rng)
scenes = torch.from_numpy(shapes.draw([shapes.scene(text, rng) for text in captions]))
seen = torch.cat([image_text.features(part) for part in scenes.split(100)])
said = image_text.embed_texts(captions, "fluent")
mean, scale, centre = seen.mean(0), seen.std(0) + 1e-3, said.mean(0)
bridge = ridge((seen - mean) / scale, said - centre, 1000.0)


def image_text_reward(samples: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
    """The cosine of pictures and prompts by your bridge."""
    looked = ((image_text.features(samples) - mean) / scale) @ bridge
    return torch.cosine_similarity(looked, image_text.embed_texts(prompts, "fluent") - centre)


# %%
EACH = choose(smoke=4, cpu=50, gpu=100)
TURNED = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
rows = ["| prompts | true above flawed |", "|---|---|"]
for kind in shapes.KINDS:
    texts = [str(text) for text in rng.choice(shapes.prompts(kind), EACH)]
    true, flawed = (
        torch.from_numpy(shapes.draw([shapes.scene(text, rng, flawed=flaw) for text in texts])) for flaw in (0, 1)
    )
    told = (image_text_reward(true, texts) > image_text_reward(flawed, texts)).float().mean().item()
    rows.append(f"| {kind} | {told:.2f} |")
turned = [text.replace(word, TURNED[word]) for text in texts for word in TURNED if word in text]
order = (image_text_reward(true, texts) > image_text_reward(true, turned)).float().mean().item()
Markdown("\n".join([*rows, f"| *relation, the right words in the wrong order* | {order:.2f} |"]))

# %% [markdown]
# It sees colours, shapes, numbers. In the last row the *picture* stays and the prompt is turned round: *a red circle
# left of ...* against *right of*. How far is it from a coin there? A sentence encoder gives both nearly the same
# vector, for they have nearly the same words, and no bridge can bring back what the vector has lost. Benchmarks such as
# T2I-CompBench and GenEval test just this: attributes, numbers and places, one by one.

# %% [markdown]
# ## 6. Ask a person
#
# What about wishes that no rule and no caption can say? Ask. Nobody can rate a picture from 0 to 10 twice alike, but
# everybody can say which of two is better. So: here are 30 pairs, each by the model for one prompt. Click, or use the
# arrow keys: left, right, down for *cannot say*, backspace to take one back. Your answers are kept after each click.
# To keep it short, the prompts are of the two simplest kinds, and pairs in which the verifier sees hardly a difference
# were left out. Give it five minutes, then go on below.

# %%
DRAWN, PAIRS, HELD = choose(smoke=(200, 60, 30), cpu=(6000, 3000, 600), gpu=(36_000, 20_000, 600))
asked = [str(rng.choice(shapes.trained_prompts(str(rng.choice(["single", "count"]))))) for _ in range(DRAWN)]
left, right = (base.generate(asked, rng.integers(2**62, size=DRAWN).tolist(), steps=6) for _ in range(2))
true_left, true_right = (rewards.shapes_dense()(side, asked) for side in (left, right))
clear = ((true_left - true_right).abs() >= 0.15).nonzero()[: PAIRS + HELD, 0]  # where there is something to see
left, right, true_left, true_right = (part[clear] for part in (left, right, true_left, true_right))
asked = [asked[i] for i in clear]
yours = torch.randperm(PAIRS, generator=stream)[:30]

# %%
labeller = PairLabeller(
    left[yours],
    right[yours],
    [asked[i] for i in yours],
    file=course_root() / "work" / f"08-pairs-{seed()}.json",
    alt="thirty pairs of pictures of coloured shapes, two for each prompt",
    caption="Arrow keys: left, right, down (cannot say). Backspace takes an answer back.",
)
display(labeller)

# %% [markdown] goal="8.7"
# Thirty pairs will not train a network; thousands would. Where thousands come from, people get tired, have habits, and
# slip. Before you trust a model of their answers, make a **simulated rater** whose faults you know. It likes the left
# picture with probability
#
# $$P(\text{left}) = (1 - \epsilon)\,\operatorname{sigmoid}\!\Big(\frac{s_{\text{left}} - s_{\text{right}}}{\tau}
# + b\Big) + \frac{\epsilon}{2}.$$
#
# $s$ are the true scores. The temperature $\tau$ says how blurred they are seen, $b$ is a habit (a *position bias*:
# the left one looks better for being left), and $\epsilon$ is the share of answers given without looking.


# %% exercise={"id": "8.7", "name": "prefers_left", "title": "A rater with faults", "points": 2, "minutes": 8, "difficulty": 1, "forbidden": ["pixelpolicy.rl", "pixelpolicy.rewards"]}
def prefers_left(
    left: Float[Tensor, "pairs"], right: Float[Tensor, "pairs"], temperature: float, bias: float, slips: float
) -> Float[Tensor, "pairs"]:
    """The probability that the rater prefers the left picture, given the true scores of both."""
    ### BEGIN SOLUTION
    looked = torch.sigmoid((left - right) / temperature + bias)
    return (1 - slips) * looked + slips / 2
    ### END SOLUTION


# %% [markdown] hints="8.7"
# <details><summary>Hint 1: who looks</summary>
#
# A share of `1 - slips` of the answers follows the sigmoid; the others are coins.
#
# </details>
# <details><summary>Hint 2: what the bias is added to</summary>
#
# To the difference *after* it was divided by the temperature, inside the sigmoid.
#
# </details>
# <details><summary>Hint 3: large differences</summary>
#
# `torch.sigmoid` is safe for any number; an exponential of your own is not.
#
# </details>

# %% check="8.7"
check("8.7", prefers_left)

# %%
chance = prefers_left(true_left, true_right, temperature=0.1, bias=0.0, slips=0.05)
answers = torch.rand(len(chance), generator=stream) < chance  # True: left
ceiling = torch.maximum(chance, 1 - chance)[PAIRS:].mean().item()
alike = prefers_left(torch.zeros(1), torch.zeros(1), temperature=0.1, bias=1.0, slips=0.05).item()
print(f"of the rater's own answers, who knows all true scores foretells {ceiling:.3f}: the ceiling of any model")
print(f"two pictures of equal worth, a habit of 1: the left one wins {alike:.3f}. Show each pair both ways round")

# %%
by_hand = len(labeller.judged) >= 10
judged = torch.tensor(labeller.judged if by_hand else range(len(yours)))
mine = yours[judged]
if by_hand:
    your_answers = torch.tensor([labeller.answers[i] == "left" for i in judged])
    agreed = (your_answers == (true_left > true_right)[mine]).float().mean().item()
    print(f"you judged {len(mine)} pairs, and agree with the verifier in {agreed:.2f} of them")
else:
    your_answers = answers[mine]
    print("fewer than ten pairs were judged by hand: the simulated rater's answers stand in for yours")

# %% [markdown]
# Now three reward models of one make: from your pairs, from 600 of the rater's, and from thousands. Each is a small
# network that sees a picture and reads its prompt, trained with the Bradley-Terry loss of lab 05.


# %%
def preference_model(rows: Tensor, left_won: Tensor, steps: int) -> Callable:
    """A reward fitted to the answers of these pairs."""
    torch.manual_seed(seed())
    network, won = rewards.RewardNetwork(), left_won[:, None, None, None]
    winners, losers = torch.where(won, left[rows], right[rows]), torch.where(won, right[rows], left[rows])
    rewards.fit_pairs(network, winners, losers, [asked[i] for i in rows], steps=steps, seed=seed())
    return rewards.learned_reward(network, "preferences")


def margins(model: Callable, rows: Tensor) -> Float[Tensor, "pairs"]:
    """By how much a model prefers the left picture of pairs."""
    texts = [asked[i] for i in rows]
    with torch.no_grad():
        return model(left[rows], texts) - model(right[rows], texts)


# %%
every, held = torch.arange(PAIRS), torch.arange(PAIRS, len(asked))
some = every[: choose(smoke=30, cpu=600, gpu=600)]
steps = choose(smoke=(3, 3, 3), cpu=(80, 250, 350), gpu=(80, 250, 3000))
data = {"yours": (mine, your_answers), "few": (some, answers[some]), "many": (every, answers[every])}
models = {name: preference_model(*data[name], n) for name, n in zip(data, steps, strict=True)}

# %%
lines, learnt = ["| pairs | right on its own pairs | right on held-out pairs |", "|---|---|---|"], {}
for name, (rows, won) in data.items():
    own, new = (
        ((margins(models[name], r) > 0) == w).float().mean().item() for r, w in ((rows, won), (held, answers[held]))
    )
    learnt[name] = (own, new)
    lines.append(f"| {len(rows)} | {own:.3f} | {new:.3f} |")
Markdown("\n".join([*lines, f"| *the ceiling* | | *{ceiling:.3f}* |"]))

# %% [markdown]
# With few pairs a network learns them by heart and understands little. More pairs help; the published reward models
# had hundreds of thousands.

# %% [markdown] goal="8.8"
# A preference model does not only say *left*; it says *how sure*: $p = \operatorname{sigmoid}(r_{\text{left}} -
# r_{\text{right}})$. Is it right in 70% of the cases where it says 0.7? That is **calibration**. Sort the cases into
# bins of equal width by their probability, and average the gaps:
#
# $$\text{ECE} = \sum_{\text{bins}} \frac{n_{\text{bin}}}{n}
# \big|\,\text{mean probability} - \text{share that came true}\,\big|,$$
#
# the *expected calibration error*. Empty bins count nothing; a probability of exactly 1 belongs to the last bin.


# %% exercise={"id": "8.8", "name": "calibration_error", "title": "Does 0.7 mean 0.7?", "points": 3, "minutes": 12, "difficulty": 3, "forbidden": ["pixelpolicy.rl", "pixelpolicy.rewards", "sklearn", "scipy"]}
def calibration_error(probabilities: Float[Tensor, "cases"], outcomes: Bool[Tensor, "cases"], bins: int = 10) -> float:
    """The expected calibration error over bins of equal width from 0 to 1."""
    ### BEGIN SOLUTION
    places = (probabilities * bins).long().clamp(max=bins - 1)
    error = 0.0
    for place in range(bins):
        mine = places == place
        if mine.any():
            gap = probabilities[mine].mean() - outcomes[mine].to(probabilities.dtype).mean()
            error += mine.double().mean().item() * abs(gap.item())
    return error
    ### END SOLUTION


# %% [markdown] hints="8.8"
# <details><summary>Hint 1: which bin</summary>
#
# The whole part of `probabilities * bins` is the number of the bin; for 1.0 it would be one too many: clamp.
#
# </details>
# <details><summary>Hint 2: one bin</summary>
#
# Its mean probability against the share of its outcomes that are True. The absolute value comes after both means.
#
# </details>
# <details><summary>Hint 3: the weights</summary>
#
# Each gap counts by the share of all cases that are in its bin, not one over the number of bins.
#
# </details>

# %% check="8.8"
check("8.8", calibration_error)

# %% [markdown]
# Overconfidence can be mended with a single number. Divide all margins by a temperature; choose it on one half of the
# held-out pairs, and measure on the other.

# %%
half, other = held[: len(held) // 2], held[len(held) // 2 :]
TEMPERATURES = np.geomspace(0.5, 50, 40)
calibration, said_by = {}, {}
for name in ("few", "many"):
    here, there, won = margins(models[name], half), margins(models[name], other), answers[half]
    signed = torch.where(won, here, -here)
    surprise = [-torch.nn.functional.logsigmoid(signed / t).mean().item() for t in TEMPERATURES]
    softer = float(TEMPERATURES[int(np.argmin(surprise))])
    said_by[name], said_by[f"{name}, divided by {softer:.1f}"] = there.sigmoid(), (there / softer).sigmoid()
calibration = {name: calibration_error(said, answers[other]) for name, said in said_by.items()}
{name: round(error, 3) for name, error in calibration.items()}


# %%
def reliability(said: Tensor, outcomes: Tensor, bins: int = 5) -> tuple[list[float], list[float]]:
    """Mean probability and share that came true, for bins with cases in them."""
    places = (said * bins).long().clamp(max=bins - 1)
    cells = [places == b for b in range(bins) if (places == b).any()]
    return [said[c].mean().item() for c in cells], [outcomes[c].float().mean().item() for c in cells]


viz.curves(
    {"calibrated": ([0, 1], [0, 1])} | {name: reliability(said, answers[other]) for name, said in said_by.items()},
    colours={"calibrated": "#999999"},
    xlabel="probability that the model gives to left",
    ylabel="share in which left won",
    alt="Share of pairs won by the left picture against the probability that each model gives. Both raw models are "
    "flatter than the diagonal, the one from few pairs far more; divided by a temperature they follow it.",
)

# %% [markdown]
# ## 7. The proxy
#
# Gradient methods need a reward with a gradient, and the verifier has none. So the course ships a **proxy**: the same
# small network, fitted to the verifier's dense scores on tens of thousands of the base's pictures, half of them under
# prompts that only *resemble* their own. Labs to come will climb it. Get to know it first where it was trained: on
# pictures of the base.

# %%
proxy = rewards.learned_proxy()
others = [near_prompt(text, rng) for text in prompts]
both, texts = torch.cat([pictures, pictures]), prompts + others
guessed, dense = proxy(both, texts), rewards.shapes_dense()(both, texts)
strict = rewards.shapes_strict()(both, texts).bool()
agreement = {
    "correlation": torch.corrcoef(torch.stack([guessed, dense]))[0, 1].item(),
    "auc": area_under_curve(guessed, strict),
}
{name: round(value, 3) for name, value in agreement.items()}

# %%
figure = Figure(figsize=(5.2, 3.6))
axis = figure.subplots()
for verdict, colour, mark in ((True, COLOURS["dpo"], "o"), (False, COLOURS["grpo"], "x")):
    at = strict == verdict
    axis.scatter(dense[at], guessed[at], s=14, color=colour, marker=mark, label="accepted" if verdict else "rejected")
axis.plot([0, 1], [0, 1], "--", color="#777777", linewidth=1)
axis.set(xlabel="dense verifier", ylabel="proxy")
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False, fontsize=8)
viz.picture(
    figure,
    alt="The proxy against the dense verifier on pictures of the base: a cloud along the diagonal, with "
    f"correlation {agreement['correlation']:.2f}; accepted pictures lie at the upper right.",
)

# %% [markdown]
# Here it can be used. Now show it what it has **never** seen. A network has no way to say *I do not know*: it answers,
# and somewhere in the space of all pictures its answers are wrong and high. An optimiser is a machine that looks for
# just that place.

# %%
one = torch.from_numpy(shapes.draw([[shapes.Thing("red", "circle", 16.0, 16.0, 4.0)]]))
empty = torch.from_numpy(shapes.draw([[]]))
full = torch.from_numpy(shapes.COLOURS["red"] * 2 - 1)[None, :, None, None].expand(one.shape)
strange = {
    "a true picture": one,
    "an empty one": empty,
    "all red": full,
    "its negative": -one,
    "noise": torch.rand(one.shape, generator=stream) * 2 - 1,
    "stripes of red": torch.where(torch.arange(32) % 4 < 2, full, empty),
    "a bright circle": torch.where(one > 0.5, 1.0, empty),
    "enlarged": torch.nn.functional.interpolate(one, scale_factor=3)[:, :, 32:64, 32:64],
}

# %%
odd, question = torch.cat(list(strange.values())), ["a red circle"] * len(strange)
values, truth = proxy(odd, question), rewards.shapes_dense()(odd, question)
viz.sample_sheet(
    odd,
    [f"{name}: proxy {v:.2f}, verifier {d:.2f}" for name, v, d in zip(strange, values, truth, strict=True)],
    columns=4,
    size=1.7,
    alt="Eight pictures judged for the prompt 'a red circle': "
    + "; ".join(f"{n}, proxy {v:.2f}, verifier {d:.2f}" for n, v, d in zip(strange, values, truth, strict=True)),
)

# %% [markdown]
# ## 8. Three rewards, hacked
#
# No generator is trained here, and no model is at fault. You only *search*, as every optimiser does, for pictures that
# a reward likes. Beside each reward stands a check that the search never sees. This is **Goodhart's law**: when a
# measure becomes a target, it ceases to be a good measure.
#
# ### Hack 1: bytes, by trial and error
#
# Begin with sixteen pictures of the base, as latents: 256 numbers each. Change them a little at random; keep the change
# if the file is no larger by *your* `kilobytes`. Repeat. No gradient is needed.

# %%
targets, config = [prompts[i] for i in few], base.vae.config
with torch.no_grad():
    start = (base.vae.encode(pictures[few]).latent_dist.mode() - config.shift_factor) * config.scaling_factor
empty_size = kilobytes(empty[0])


def shares(latents: Tensor) -> tuple[Tensor, float]:
    """The decoded pictures, and the share of them that the verifier accepts."""
    with torch.no_grad():
        shown = base.decode(latents)
    return shown, rewards.shapes_strict()(shown, targets).mean().item()


def before_and_after(shown: Tensor, alt: str) -> viz.Picture:
    """Eight of the pictures that a search began with, and under them what it made of them."""
    rows = torch.cat([begun[:8], shown[:8]])
    verdicts = rewards.shapes_strict()(rows, targets[:8] * 2).bool().tolist()
    return viz.sample_sheet(rows, targets[:8] * 2, accepted=verdicts, alt=f"Above eight pictures of the base, {alt}")


begun, _ = shares(start)


# %%
def smaller_files(latents: Tensor, steps: int, every: int) -> tuple[Tensor, list[tuple[int, float, float]]]:
    """Hill climbing towards small files; the latents it ends at, and (step, mean kilobytes, share accepted)."""
    best, log = torch.tensor([kilobytes(picture) for picture in shares(latents)[0]]), []
    for step in range(steps + 1):
        if step % every == 0:
            log.append((step, best.mean().item(), shares(latents)[1]))
        tried = latents + 0.3 * torch.rand(1, generator=stream) * torch.randn(latents.shape, generator=stream)
        with torch.no_grad():
            size = torch.tensor([kilobytes(picture) for picture in base.decode(tried)])
        better = size <= best
        latents = torch.where(better[:, None, None, None], tried, latents)
        best = torch.where(better, size, best)
    return latents, log


# %%
SEARCH = choose(smoke=10, cpu=1000, gpu=1000)
tiny, bytes_log = smaller_files(start, SEARCH, every=SEARCH // 10)
shown, after_bytes = shares(tiny)
print(f"{bytes_log[0][1]:.3f} -> {bytes_log[-1][1]:.3f} kB a picture; an empty picture has {empty_size:.3f} kB")
print(f"accepted by the verifier: {bytes_log[0][2]:.2f} -> {after_bytes:.2f}")

# %%
before_and_after(
    shown,
    "below the same after the search for small files: objects have shrunk, lost their outlines and "
    "taken on other colours.",
)

# %% [markdown]
# ### Hack 2: a word that only the reader can read
#
# The reward of section 4 has no gradient either. Begin with random black and white tiles and flip a few at a time; keep
# what the **first reader** reads as nearer to the word. It is the only judge.


# %%
def tiles(grids: np.ndarray, side: int = 3) -> Tensor:
    """Black and white tiles ``[batch, rows, columns]`` as pictures in [-1, 1]."""
    wide = grids.repeat(side, 1).repeat(side, 2)[:, None].repeat(3, 1)
    return torch.from_numpy(wide.astype(np.float32) * 2 - 1)


def flipped(grid: np.ndarray, count: int) -> np.ndarray:
    """``count`` copies; all but the first have a few tiles flipped, or a small block made of one colour."""
    copies = np.repeat(grid[None], count, 0)
    for copy in copies[1:]:
        if rng.random() < 0.5:
            copy.reshape(-1)[rng.integers(grid.size, size=rng.integers(1, 8))] ^= True
        else:
            (y, x), (tall, wide) = rng.integers(0, grid.shape), rng.integers(1, 4, size=2)
            copy[y : y + tall, x : x + wide] = rng.random() < 0.5
    return copies


# %%
def written_in_tiles(word: str, rounds: int, count: int = 24) -> tuple[Tensor, list[float]]:
    """Search for tiles that the first reader takes for a word: the picture, and the best score of each round."""
    grid, log = rng.random((8, 16)) < 0.5, []
    for _ in range(rounds):
        copies = flipped(grid, count)
        scores = np.array([text_score(text, word) for text in read(tiles(copies))])
        grid = copies[(scores + 1e-3 * rng.random(count)).argmax()]  # among equals, any: so that it drifts on
        log.append(float(scores.max()))
        if log[-1] == 1:
            break
    return tiles(grid[None]), log


# %%
WORDS = choose(smoke=("CAT",), cpu=("CAT", "DOG", "42", "GO"), gpu=("CAT", "DOG", "42", "GO"))
wanted = [words.prompt(word) for word in WORDS]
untouched = rewards.compare_readers(tiles(rng.random((len(WORDS), 8, 16)) < 0.5), wanted)
found = [written_in_tiles(word, choose(smoke=3, cpu=250, gpu=400)) for word in WORDS]
forged = torch.cat([picture for picture, _ in found])
readings = rewards.compare_readers(forged, wanted)
fooled = {
    reader: [getattr(made, f"{reader}_scores").mean().item() for made in (untouched, readings)]
    for reader in ("first", "second")
}
for reader, (was, now) in fooled.items():
    print(f"{reader} reader: {was:.2f} on random tiles, {now:.2f} on those that were searched for")

# %%
heard = [
    tuple("".join(letter if letter.isascii() else "?" for letter in text) for text in pair)
    for pair in zip(readings.first, readings.second, strict=True)
]
viz.sample_sheet(
    forged,
    [f"first: '{a}', second: '{b}'" for a, b in heard],
    columns=4,
    size=2.0,
    alt="Tiles in black and white in which no word is to be seen. The two readers read: "
    + "; ".join(f"'{a}' and '{b}'" for a, b in heard)
    + ".",
)

# %% [markdown]
# You see tiles, the reader sees a word. A second reader of another making is a cheap alarm: where the two disagree
# about a picture that scores well, somebody is being fooled. It works only as long as nobody trains against *both*.

# %% [markdown]
# ### Hack 3: the proxy, by its gradient
#
# Now the reward with a gradient. Climb it with Adam, in the latents of the same sixteen pictures. This is what the
# reward-gradient methods of lab 10 do, except that they move the weights of the generator and so all its pictures at
# once.


# %%
def climbed(reward: Callable, steps: int, every: int) -> tuple[Tensor, list[tuple[int, float, float]]]:
    """Gradient ascent on a reward in latents; where it ends, and (step, mean reward, share accepted)."""
    latents, log = start.clone().requires_grad_(), []
    optimizer = torch.optim.Adam([latents], lr=0.02)
    for step in range(steps + 1):
        value = reward(base.decode(latents), targets)
        if step % every == 0:
            log.append((step, value.mean().item(), shares(latents.detach())[1]))
        optimizer.zero_grad()
        (-value.sum()).backward()
        optimizer.step()
    return latents.detach(), log


# %%
CLIMB = choose(smoke=10, cpu=150, gpu=150)
far, proxy_log = climbed(proxy, CLIMB, every=CLIMB // 10)
climbed_to, after_proxy = shares(far)
print(
    f"proxy {proxy_log[0][1]:.2f} -> {proxy_log[-1][1]:.2f}; accepted {proxy_log[0][2]:.2f} -> {proxy_log[-1][2]:.2f}"
)
before_and_after(climbed_to, "below the same after climbing the proxy.")

# %% [markdown]
# By the proxy, the lower row is the better one. Three curves, one story: the reward (solid) does what it was asked to,
# and the check beside it (dashed) tells you what it was worth.

# %%
figure = Figure(figsize=(9.5, 2.9), layout="constrained")
left_panel, middle, right_panel = figure.subplots(1, 3)
for axis, log, name in ((left_panel, bytes_log, "-kilobytes"), (right_panel, proxy_log, "proxy")):
    step, value, check_value = (list(column) for column in zip(*log, strict=True))
    axis.plot(step, [-v for v in value] if name == "-kilobytes" else value, color=COLOURS["grpo"])
    axis.set(title=f"{name} and share accepted", xlabel="step", ylabel=name)
    beside = axis.twinx()
    beside.plot(step, check_value, "--", color=COLOURS["nft"])
    beside.set_ylim(-0.02, 1.02)
for (_, log), word, style in zip(found, WORDS, ("-", "--", ":", "-."), strict=False):
    middle.plot(log, style, color=COLOURS["grpo"], label=word)
middle.axhline(fooled["second"][1], linestyle="--", color=COLOURS["nft"], label="second reader, end")
middle.set(title="score of the first reader", xlabel="round", ylim=(-0.02, 1.05))
middle.legend(frameon=False, fontsize=7)
viz.picture(
    figure,
    alt="Three panels. Left, small files: the reward rises and the share accepted falls. Middle, the "
    "first reader's score climbs to the top in steps while the second reader stays low. Right, the proxy rises "
    "and the share accepted falls to nothing.",
)

# %% [markdown]
# ### Who would have noticed?
#
# Each reward of this lab as a witness of hack 3: what it said of the pictures before, and what it says after. A witness
# is useful if it was made in another way than what was climbed. (The preference model has only been asked about single
# objects and counts, and half of these prompts are of other kinds: it is a weak witness.)

# %%
witnesses = {
    "proxy (climbed)": proxy,
    "preferences (single objects and counts)": models["many"],
    "image and text, your bridge": image_text_reward,
    "colours": colours,
    "dense verifier": rewards.shapes_dense(),
    "strict verifier": rewards.shapes_strict(),
}
spoken = {
    name: [judge(shots, targets).mean().item() for shots in (begun, climbed_to)] for name, judge in witnesses.items()
}
lines = [
    f"| {name} | {was:.2f} | {now:.2f} | {'falls' if now < was else 'rises'} |" for name, (was, now) in spoken.items()
]
Markdown("\n".join(["| reward | before | after | |", "|---|---|---|---|", *lines]))

# %% [markdown]
# ## 9. Who agrees with whom?
#
# All rewards on one set of pictures, and how they go together: the correlation of each with each. Under `gpu` the
# pictures are those of a real model, at 512 pixels, averaged down for those rewards that know 32 only.

# %%
painter, shots, texts = base, pictures, prompts
if real_model():
    painter = sd3.load_for_profile(template="a flat drawing of {prompt} on a black background", max_sequence_length=128)
    texts = prompts[:: choose(smoke=2, cpu=1, gpu=4)]
    painter.remember(texts)
    shots = painter.generate(texts, list(range(len(texts)))).float().cpu()
    shots = torch.from_numpy(shapes.reduced(shots.numpy()))
witnesses |= {"redness": red, "small files": lambda s, _: -torch.tensor([kilobytes(picture) for picture in s])}
said_of = {name: judge(shots, texts).detach().double() for name, judge in witnesses.items()}
table = torch.corrcoef(torch.stack(list(said_of.values()))).nan_to_num()

# %%
names = [name.split(" (")[0].split(",")[0] for name in said_of]
figure = Figure(figsize=(6.4, 5.2), layout="constrained")
axis = figure.subplots()
axis.imshow(table, cmap="PuOr", vmin=-1, vmax=1)
for i, j in np.ndindex(*table.shape):
    axis.text(
        j,
        i,
        f"{table[i, j]:.2f}",
        ha="center",
        va="center",
        fontsize=7,
        color="white" if abs(table[i, j]) > 0.7 else "black",
    )
axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
axis.set_yticks(range(len(names)), names, fontsize=8)
viz.picture(
    figure,
    alt="Correlations between the rewards of this lab on the same pictures: "
    + "; ".join(
        f"{name} with the strict verifier {table[i, names.index('strict verifier')]:.2f}"
        for i, name in enumerate(names)
    ),
)

# %% [markdown]
# ## 10. The map
#
# The literature's reward models and benchmarks, placed by the two questions of this lab: what do they look at, and who
# taught them? In italics, where this course's own rewards stand.

# %%
reward_map(literature())

# %% [markdown]
# ## What to take away
#
# - A reward is a number for each picture. Test it on clean data before it judges, and keep its parts apart.
# - A rule sees what it was written for. A model sees what it was shown, and answers everywhere else all the same.
# - Preferences are cheap to ask for and full of noise: count the pairs, know the ceiling, look at calibration.
# - Every reward can be driven where it was never meant to be. So each run of this course has an independent check,
#   which nothing is trained on.
#
# The cell below writes down what happened here.

# %%
hacks = {
    "bytes": {"kilobytes": (bytes_log[0][1], bytes_log[-1][1]), "strict": (bytes_log[0][2], after_bytes)},
    "text": {f"{reader}_reader": scores for reader, scores in fooled.items()},
    "proxy": {"proxy": (proxy_log[0][1], proxy_log[-1][1]), "strict": (proxy_log[0][2], after_proxy)},
}
preferences = {
    f"{name}_{where}": value
    for name, pair in learnt.items()
    for where, value in zip(("own", "held_out"), pair, strict=True)
}
errors = {name.split(",")[0] + "_softened" * ("," in name): error for name, error in calibration.items()}

# %%
record = write_record(
    "08-rewards",
    ({"rehearsal": int(rehearsing())} if real_model() else {})
    | {
        "verifier_on_true": verifier,
        "verifier_on_wrong": wrong,
        "ocr_exact": exact["first"],
        "ocr_exact_second": exact["second"],
        "recall_at_1": recall,
        "recall_at_1_control": control,
        "word_order": order,
        "preference_accuracy": preferences,
        "preference_ceiling": ceiling,
        "labelled_by_hand": int(by_hand),
        "calibration_error": errors,
        "proxy_agreement": agreement,
        "hacks": {h: {k: {"before": a, "after": b} for k, (a, b) in v.items()} for h, v in hacks.items()},
    },
    seed=seed(),
    seconds=lab_clock.seconds,
    cpu_seconds=lab_clock.cpu_seconds,
)
print(f"{record['name']}, seed {record['seed']}, profile {record['profile']}: written to results/08.json")
