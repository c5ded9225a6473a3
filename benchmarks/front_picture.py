"""The moving picture of the front page: `python benchmarks/front_picture.py`, two CPU minutes.

Two policies learn by the same `clipped_surrogate`: PPO on CartPole, and the long run of lab 12, seed 0, whose first
iterations are gone through again (rounding parts them from the recorded ones after some twenty). Now and then both are
looked at: eight carts from eight fixed starts, each action the likeliest; eight pictures for the fixed prompts and
seeds that the first figure of chapter 12 shows too. The last look is at what is kept of the long run.

Leaves in `book/front`: `pictures.png`, a row a look; `data.js`, all else; `still.png`, the first look and the last,
whose alternative text is written into `book/index.md`. `--still` draws that anew from the other two.
"""

import argparse
import json
import re
import time

import gymnasium
import numpy as np
import torch
from chapter import ROOT
from grpo_long import LOOP, make
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from pixelpolicy import viz
from pixelpolicy.control import evaluate as greedy_returns
from pixelpolicy.control import make as make_envs
from pixelpolicy.control import ppo
from pixelpolicy.course import recorded
from pixelpolicy.files import write_whole
from pixelpolicy.finetune import Loop
from pixelpolicy.generators import evaluate, load
from pixelpolicy.worlds import shapes

FOLDER, PAGE = ROOT / "book" / "front", ROOT / "book" / "index.md"
RUN, SEED = "12-grpo-long", 0
ITERATIONS = (0, 2, 4, 8, 12, 16, 20, 30, 40)  # of both, at which they are looked at; then comes the end
FRAMES, LONGEST = 41, 500  # of an episode: dense at first, where a beginner falls
VARIABLE = "frontPicture"
GREEN, RED = "#009E73", "#D55E00"


def moments() -> list[int]:
    """The pushes after which a frame is drawn."""
    return [round(LONGEST * (frame / (FRAMES - 1)) ** 2) for frame in range(FRAMES)]


def episode(act, start: int) -> tuple[list[list[float]], int]:
    """Place and angle of the cart at the moments of an episode, and how many pushes the pole stood."""
    env = gymnasium.make("CartPole-v1")
    state, over, states = env.reset(seed=start)[0], False, []
    while not over:
        states.append(state)
        state, _, fallen, out_of_time, _ = env.step(int(act(torch.as_tensor(state)[None])[0]))
        over = fallen or out_of_time
    states.append(state)
    env.close()
    shown = [states[min(moment, len(states) - 1)] for moment in moments()]
    return [[round(float(state[0]), 3), round(float(state[2]), 3)] for state in shown], len(states) - 1


def carts() -> list[dict]:
    """PPO learns CartPole; what its carts do at each look."""
    config = ppo.CARTPOLE
    learner, looks = ppo.PPO(make_envs("CartPole-v1", config.copies), config, seed=SEED), []
    for iteration in range(config.iterations + 1):
        if iteration in (*ITERATIONS, config.iterations):
            played = [episode(learner.policy.greedy, start) for start in range(8)]
            returns = greedy_returns(learner.policy.greedy, "CartPole-v1", episodes=100, seed=1000)
            look = {"steps": learner.steps, "stood": [stood for _, stood in played], "mean": float(returns.mean())}
            looks.append(look | {"carts": [states for states, _ in played]})
            print(look, flush=True)
        if iteration < config.iterations:
            learner.iteration()
    return looks


def prompts_and_seeds() -> tuple[list[str], list[int]]:
    """Two of each kind of prompt: those of the first figure of chapter 12."""
    prompts, seeds = shapes.evaluation_pairs("test", per_kind=4)
    return prompts[::2], seeds[::2]


def look_at(generator, drawn: int) -> tuple[dict, np.ndarray]:
    """What the verifier says of the eight pictures and of 256 for choosing; the pictures, uint8 [8, 32, 32, 3]."""
    prompts, seeds = prompts_and_seeds()
    pictures = generator.generate(prompts, seeds)
    accepted = [bool(verdict.strict) for verdict in shapes.verify(pictures.numpy(), prompts)]
    accuracy = evaluate(generator, "validation", per_kind=64)["accuracy"]
    look = {"pictures": drawn, "accepted": accepted, "accuracy": accuracy}
    print(look, flush=True)
    return look, ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def generators() -> tuple[list[dict], np.ndarray]:
    """The long run of lab 12 goes its first steps again; what it draws at each look, at the end by what was kept."""
    base, log = load("shapes"), recorded.history(RUN, SEED)
    algorithm, found = make(base.student(), SEED), []
    loop, size = Loop(algorithm, LOOP), algorithm.config.size
    for iteration in range(max(ITERATIONS) + 1):
        if iteration in ITERATIONS:
            with loop.averaged_weights():
                found.append(look_at(algorithm.policy.generator, iteration * size))
        if iteration < max(ITERATIONS):
            reward, recorded_one = loop.iterate()["reward"], log[iteration]["reward"]
            print(f"{loop.iteration}: reward {reward:.4f}, recorded {recorded_one:.4f}", flush=True)
    found.append(look_at(recorded.apply(RUN, SEED, load("shapes")), len(log) * size))
    return [look for look, _ in found], np.stack([pictures for _, pictures in found])


def write(data: dict, pictures: np.ndarray) -> None:
    looks, columns, height, width, _ = pictures.shape
    FOLDER.mkdir(exist_ok=True)
    sheet = pictures.transpose(0, 2, 1, 3, 4).reshape(looks * height, columns * width, 3)
    Image.fromarray(sheet).save(FOLDER / "pictures.png", optimize=True)
    write_whole(FOLDER / "data.js", f"{VARIABLE} = {json.dumps(data, separators=(',', ':'))};\n")


def read() -> tuple[dict, np.ndarray]:
    text = (FOLDER / "data.js").read_text(encoding="utf-8")
    data = json.loads(text.partition(" = ")[2].rstrip(";\n"))
    sheet = np.asarray(Image.open(FOLDER / "pictures.png"))
    size = sheet.shape[1] // len(data["prompts"])
    return data, sheet.reshape(-1, size, len(data["prompts"]), size, 3).transpose(0, 2, 1, 3, 4)


def still(data: dict, pictures: np.ndarray) -> viz.Picture:
    """The first look and the last: carts where their episodes ended, and pictures."""
    figure = Figure(figsize=(8.4, 4.8), facecolor="white")
    grid = figure.subplots(
        5, 9, width_ratios=[1] * 4 + [0.25] + [1] * 4, height_ratios=[1, 1, 0.3, 1, 1],
        gridspec_kw={"hspace": 0.12, "wspace": 0.08},
    )  # fmt: skip
    for part, look in enumerate((data["looks"][0], data["looks"][-1])):
        for place in range(8):
            row, column = 3 * part + place // 4, place % 4
            cart, drawn = grid[row, column], grid[row, 5 + column]
            x, angle = look["carts"][place][-1]
            draw_cart(cart, x, angle)
            drawn.imshow(pictures[-1 if part else 0, place], interpolation="nearest")
            for axis, good in ((cart, look["stood"][place] == LONGEST), (drawn, look["accepted"][place])):
                for spine in axis.spines.values():
                    spine.set(color=GREEN if good else RED, linewidth=2, capstyle="butt")
                    spine.set_linestyle("-" if good else (0, (3, 2)))
        words = "before" if part == 0 else "after"
        grid[3 * part, 0].set_title(
            f"{words}: {sum(s == LONGEST for s in look['stood'])} of 8 stand", loc="left", fontsize=9
        )
        grid[3 * part, 5].set_title(f"{words}: {sum(look['accepted'])} of 8 accepted", loc="left", fontsize=9)
    for axis in grid.flat:
        axis.set_xticks([]), axis.set_yticks([])
    for axis in (*grid[:, 4], *grid[2]):
        axis.set_visible(False)
    first, last = data["looks"][0], data["looks"][-1]
    stand = [sum(stood == LONGEST for stood in look["stood"]) for look in (first, last)]
    return viz.picture(
        figure,
        alt="Two policies before and after they learnt by the same loss. Left, eight carts with a pole: before, "
        f"{stand[0]} of 8 poles stand to the end, the longest for {max(first['stood'])} of {LONGEST} pushes; after, "
        f"{stand[1]} of 8. Right, pictures of coloured shapes for eight prompts: before, {sum(first['accepted'])} of 8 "
        f"show what was asked and have a solid green frame, the others one in dashed red; after, "
        f"{sum(last['accepted'])} of 8.",
    )


def draw_cart(axis, x: float, angle: float) -> None:
    axis.axhline(0, color="#777777", linewidth=0.8)
    axis.add_patch(Rectangle((x - 0.35, -0.12), 0.7, 0.3, color="#0072B2"))
    axis.plot([x, x + 1.5 * np.sin(angle)], [0.18, 0.18 + 1.5 * np.cos(angle)], linewidth=3, color="#AA7700")
    axis.set(xlim=(-2.4, 2.4), ylim=(-1.4, 3.4), aspect="equal")


def place_alt(picture: viz.Picture) -> None:
    text, alt = (
        PAGE.read_text(encoding="utf-8"),
        re.compile(r"(\{figure\} front/still\.png\n(?::[^\n]*\n)*?:alt: )[^\n]*"),
    )
    new, found = alt.subn(lambda match: match[1] + picture.alt, text)
    if found != 1:
        raise SystemExit(f"{PAGE} shows front/still.png {found} times with an :alt: line; it must be once")
    write_whole(PAGE, new)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--still", action="store_true", help="only draw the still anew")
    if not parser.parse_args().still:
        torch.set_num_threads(1)
        started = time.process_time()
        looks, (drawn, pictures) = carts(), generators()
        prompts, seeds = prompts_and_seeds()
        data = {
            "prompts": prompts, "seeds": seeds, "moments": moments(),
            "looks": [cart | picture for cart, picture in zip(looks, drawn, strict=True)],
        }  # fmt: skip
        write(data, pictures)
        print(f"{time.process_time() - started:.0f} CPU seconds")
    picture = still(*read())
    picture.save(FOLDER / "still.png")
    place_alt(picture)
    print(picture.alt)


if __name__ == "__main__":
    main()
