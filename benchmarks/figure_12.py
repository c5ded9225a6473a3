"""The picture that opens chapter 12: `python benchmarks/figure_12.py`, after the long run was recorded."""

import torch

from pixelpolicy import viz
from pixelpolicy.course import recorded
from pixelpolicy.course.files import course_root
from pixelpolicy.generators import load
from pixelpolicy.worlds import shapes

COLUMNS = 8


def main() -> None:
    prompts, seeds = shapes.evaluation_pairs("test", per_kind=4)
    prompts, seeds = prompts[::2], seeds[::2]  # two of each kind
    pictures = [
        generator.generate(prompts, seeds)
        for generator in (load("shapes"), recorded.apply("12-grpo-long", 0, load("shapes")))
    ]
    accepted = [verdict.strict for part in pictures for verdict in shapes.verify(part.numpy(), prompts)]
    sheet = viz.sample_sheet(
        torch.cat(pictures),
        prompts * 2,
        columns=COLUMNS,
        accepted=accepted,
        alt=f"Eight prompts, above by the base ({sum(accepted[:COLUMNS])} right), below after the long run "
        f"({sum(accepted[COLUMNS:])} right).",
    )
    folder = course_root() / "chapters" / "figures"
    folder.mkdir(exist_ok=True)
    sheet.save(folder / "12-before-after.png")
    print(sheet.alt)


if __name__ == "__main__":
    main()
