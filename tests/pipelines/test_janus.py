"""Janus as a writer of tokens, by its tiny random twin; and the published model, counted on the meta device."""

from pathlib import Path

import pytest
import torch
from headers import command, rows

from pixelpolicy.errors import CheckpointError
from pixelpolicy.finetune import GRPOConfig, Loop, LoopConfig, TokenGRPO
from pixelpolicy.generators.sampling import write
from pixelpolicy.pipelines import janus
from pixelpolicy.pipelines.janus_config import FETCH, REPOSITORY, TARGETS, footprint, parameter_counts
from pixelpolicy.policies import TokenPolicy
from pixelpolicy.rewards import layout_agreement, of_pictures, shapes_dense
from pixelpolicy.worlds import layouts, shapes

PROMPTS = ["a red circle", "a red circle left of a blue square", "two green squares", "a yellow triangle"]
SEEDS = torch.arange(4)
LISTED = 4.18  # GB: the size of model.safetensors of Janus-Pro 1B, as the hub lists it
SOLUTIONS = sorted(Path(__file__).parents[2].glob("solutions/*.py"))
LABS = [lab for lab in SOLUTIONS if f"`{REPOSITORY}`" in lab.read_text(encoding="utf-8")]


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return janus.load(janus.twin(tmp_path_factory.mktemp("janus")), device="cpu")


def test_written_token_by_token_and_read_at_once_are_the_same_model(generator):
    tokens = write(generator.begin(PROMPTS), SEEDS)
    draft, whole = generator.begin(PROMPTS), generator.logits(PROMPTS, tokens)
    assert whole.shape == (4, generator.steps + 1, generator.grammar.choices)
    for step in range(generator.steps):
        possible = ~whole[:, step].isneginf()
        assert torch.equal(possible, ~draft.logits.isneginf())
        assert torch.allclose(draft.logits[possible], whole[:, step][possible], atol=1e-4)
        draft.append(tokens[:, step])


def test_a_prompt_does_not_depend_on_its_company(generator):
    tokens = write(generator.begin(PROMPTS), SEEDS)
    alone = write(generator.begin(PROMPTS[:1]), SEEDS[:1])
    assert torch.equal(alone, tokens[:1])


def test_it_draws_what_its_own_way_of_generating_pictures_would(generator):
    """Codes, after the same text, by the logits of transformers' own forward and generation head."""
    tokens = write(generator.begin(PROMPTS[:1]), SEEDS[:1])
    ids, _ = generator.prefix(PROMPTS[:1])
    model, cut = generator.model, layouts.LENGTH
    text = torch.cat([ids, generator.words[tokens[:, :cut]], torch.tensor([[generator.tokenizer.boi_token_id]])], 1)
    codes = tokens[:, cut:] - generator.grammar.first_code
    embeds = torch.cat(
        [model.get_input_embeddings()(text), model.prepare_embeddings_for_image_generation(codes[:, :-1])], 1
    )
    hidden = model.model.language_model(inputs_embeds=embeds).last_hidden_state[:, text.shape[1] - 1 :]
    ours = generator.logits(PROMPTS[:1], tokens)[:, cut:-1, generator.grammar.first_code :]
    assert torch.allclose(model.model.generation_head(hidden), ours, atol=1e-4)
    words = model(input_ids=text[:, :-2]).logits[:, -1, generator.words]
    allowed = generator.grammar.allowed(tokens)[:, cut - 1, : len(layouts.WORDS)]
    given = generator.logits(PROMPTS[:1], tokens)[:, cut - 1, : len(layouts.WORDS)]
    assert torch.allclose(words[allowed], given[allowed], atol=1e-4)


def test_a_student_begins_as_its_base_and_shares_its_weights(generator):
    student = generator.student(rank=4)
    trained = {name for name, p in student.transformer.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert student.reference() is generator
    tokens = write(generator.begin(PROMPTS), SEEDS)
    assert torch.equal(student.logits(PROMPTS, tokens), generator.logits(PROMPTS, tokens))


def test_its_sequences_are_a_policy_whose_replay_is_exact(generator):
    policy = TokenPolicy(generator.student(rank=4), micro_batch=4)
    rollout = policy.rollout(PROMPTS, seeds=SEEDS)
    replayed = policy.log_probs(rollout)
    assert torch.equal(replayed.detach(), rollout.log_probs)
    replayed.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in policy.generator.transformer.parameters())
    assert {tuple(d.picture.shape) for d in rollout.samples} == {(3, 32, 32)}
    assert all(1 <= len(d.layout) <= layouts.SLOTS for d in rollout.samples)


def test_grpo_trains_its_layouts(generator):
    policy = TokenPolicy(generator.student(rank=4), micro_batch=24)
    reward = layout_agreement() + of_pictures(shapes_dense())
    settings = GRPOConfig(4, 12, 1, trained_steps=1000, clip_range=0.2, kl_weight=0.01)  # prompts, group, minibatches
    prompts = lambda count, rng: [str(text) for text in rng.choice(shapes.prompts("single"), count)]  # noqa: E731
    algorithm = TokenGRPO(policy, reward, prompts, settings)
    history = Loop(algorithm, LoopConfig(2, 1e-3, progress=False)).run()
    assert all(row["kl"] >= 0 for row in history) and history[-1]["kl"] > 0


def test_weights_that_are_not_there_are_named_with_the_command_that_fetches_them():
    with pytest.raises(CheckpointError, match="hf download deepseek-community"):
        janus.load()


@pytest.mark.slow
def test_counts_are_those_of_the_published_file():
    counts = parameter_counts()
    assert 2 * sum(v for k, v in counts.items() if k != "lora") / 1e9 == pytest.approx(LISTED, rel=0.01)
    assert counts["lora"] == 24 * 32 * (4 * 2 * 2048 + 3 * (2048 + 5632)) and len(TARGETS) == 7


@pytest.mark.slow
@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)
def test_a_lab_on_this_model_states_what_is_counted(lab):
    text = lab.read_text(encoding="utf-8")
    size, stated = footprint(), rows(text)
    assert f"{size.disk:.1f} GB" in stated["disk"]
    assert f"{size.loading:.1f} GB" in stated["VRAM, loading"] and f"{size.training:.1f} GB" in stated["VRAM, training"]
    assert f"{size.sample:.1f} GB" in text
    assert text.count("(estimate, unmeasured)") >= 2 and command(text) == FETCH
