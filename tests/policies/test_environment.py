"""Denoising as a Gymnasium environment: what any agent may expect of a world, and the rollout it must repeat."""

import re
import subprocess
import sys
import warnings
from functools import partial
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from pixelpolicy.errors import PromptError, RewardError, RolloutError
from pixelpolicy.policies import DenoisingPolicy, cps, ddim_eta, flow_sde
from pixelpolicy.policies.environment import ENVIRONMENT_ID, DenoisingEnv
from pixelpolicy.rewards import jpeg_compressibility, shapes_dense
from pixelpolicy.rl import Reward

PROMPTS = ["a red circle", "two blue squares", "a green triangle above a red square"]
STEPS = 4
REDNESS = Reward("red", lambda pictures, prompts: pictures[:, 0].mean((1, 2)))
BRIGHTNESS = Reward("bright", lambda pictures, prompts: pictures.mean((1, 2, 3)))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def arguments(generator, **changed):
    return {"reward": REDNESS, "prompts": PROMPTS, "generator": generator, "steps": STEPS, **changed}


def made(generator, **changed):
    return gymnasium.make(ENVIRONMENT_ID, **arguments(generator, **changed))


def bare(generator, **changed):
    return DenoisingEnv(**arguments(generator, **changed))


def stream_of(info):
    """The random stream of a rollout of this seed, its first draw (the first latent) already taken."""
    stream = torch.Generator().manual_seed(int(info["seed"]))
    torch.randn(info["mean"].shape, generator=stream)
    return stream


def drive(environment, **reset):
    """An episode that follows the generator's own Gaussian, with the noise of a rollout of its seed."""
    observation, info = environment.reset(**reset)
    stream = stream_of(info)
    path = SimpleNamespace(observations=[observation], infos=[info], rewards=[], ended=False)
    while not path.ended:
        action = info["mean"]
        if info["std"] > 0:
            action = action + info["std"] * torch.randn(action.shape, generator=stream).numpy()
        observation, reward, path.ended, truncated, info = environment.step(action)
        assert not truncated
        path.observations.append(observation)
        path.infos.append(info)
        path.rewards.append(reward)
    return path


def same(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return np.array_equal(first, second)


# Gymnasium's own demands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_gymnasiums_checker_objects_to_the_unbounded_boxes_alone(generator, render_mode):
    environment = made(generator, render_mode=render_mode).unwrapped
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        check_env(environment)
    texts = sorted(re.sub(r"\x1b\[\d+m", "", str(warning.message)) for warning in raised)
    expected = r"A Box (action|observation) space (minimum value is -infinity|maximum value is infinity)\."
    assert len(texts) == 4 and all(re.search(expected, text) for text in texts), texts


def test_the_spaces_are_those_of_the_generator(generator):
    environment = made(generator)
    assert environment.action_space == gymnasium.spaces.Box(-np.inf, np.inf, (4, 8, 8), np.float32)
    spaces = environment.observation_space
    assert spaces["latent"] == environment.action_space and spaces["step"].n == STEPS + 1
    assert spaces["tokens"].nvec.tolist() == [len(generator.prompt_encoder.config["vocabulary"])] * 5
    observation, info = environment.reset(seed=0, options={"prompt": "two blue squares"})
    assert observation["tokens"].tolist() == generator.prompt_encoder.tokens(["two blue squares"])[0].tolist()
    assert info["prompt"] == "two blue squares" and info["std"].dtype == np.float32


def test_registration_costs_nothing_until_it_is_asked_for():
    program = (
        "import sys, pixelpolicy.policies\n"
        "assert 'gymnasium' not in sys.modules\n"
        "import gymnasium\n"
        "assert 'PixelPolicy/Denoising-v0' not in gymnasium.registry\n"
        "try:\n"
        "    gymnasium.make('pixelpolicy.policies.environment:PixelPolicy/Denoising-v0')\n"
        "except Exception as error:\n"
        "    assert 'a Reward is needed' in str(error), error\n"
        "else:\n"
        "    sys.exit('it was made without a reward')\n"
        "assert 'PixelPolicy/Denoising-v0' in gymnasium.registry\n"
        "assert not {'diffusers', 'transformers', 'peft', 'accelerate'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Agents that know nothing of generators ---------------------------------------------------------------------------


def random_agent(environment, observation, info):
    return environment.action_space.sample()


def sampling_agent(environment, observation, info):
    noise = environment.np_random.standard_normal(environment.action_space.shape, np.float32)
    return info["mean"] + info["std"] * noise


@pytest.mark.parametrize("agent", [random_agent, sampling_agent])
def test_an_agent_written_for_plain_gymnasium_steps_it_to_the_end(generator, agent):
    environment = made(generator, reward=shapes_dense())
    environment.action_space.seed(0)
    for episode in range(2):
        observation, info = environment.reset(seed=7 + episode)
        rewards, ended = [], False
        while not ended:
            assert observation in environment.observation_space and info["prompt"] in PROMPTS
            action = agent(environment, observation, info)
            observation, reward, terminated, truncated, info = environment.step(action)
            assert np.array_equal(observation["latent"], action) and not truncated
            rewards.append(reward)
            assert ("sample" in info) == terminated and observation["step"] == len(rewards)
            ended = terminated
        assert len(rewards) == STEPS and rewards[:-1] == [0.0] * (STEPS - 1)
        picture = torch.from_numpy(info["sample"])
        assert picture.shape == (3, 32, 32) and picture.abs().max() <= 1
        # What is judged is the last latent that the agent chose, under the prompt of the episode.
        decoded = generator.decode(torch.from_numpy(observation["latent"])[None])
        torch.testing.assert_close(picture, decoded[0].detach(), rtol=0, atol=0)
        assert rewards[-1] == shapes_dense()(picture[None], [info["prompt"]]).item()
        assert info["std"] == 0 and np.array_equal(info["mean"], observation["latent"])


def test_wrappers_of_gymnasium_fit(generator):
    environment = gymnasium.wrappers.RecordEpisodeStatistics(
        gymnasium.wrappers.FlattenObservation(made(generator, reward=BRIGHTNESS))
    )
    observation, info = environment.reset(seed=0)
    assert observation.shape == environment.observation_space.shape
    for _ in range(STEPS):
        observation, reward, ended, _, info = environment.step(info["mean"])
    assert ended and info["episode"]["l"] == STEPS and info["episode"]["r"] == pytest.approx(reward)


def test_two_environments_step_together_and_begin_anew_at_the_next_step(generator):
    environments = gymnasium.make_vec(ENVIRONMENT_ID, 2, vectorization_mode="sync", **arguments(generator))
    observations, infos = environments.reset(seed=3)
    alone = [drive(made(generator), seed=seed) for seed in (3, 4)]
    streams = [stream_of({"seed": seed, "mean": infos["mean"][0]}) for seed in infos["seed"]]
    for step in range(STEPS):
        noise = np.stack([torch.randn(4, 8, 8, generator=stream).numpy() for stream in streams])
        actions = infos["mean"] + infos["std"][:, None, None, None] * noise
        observations, rewards, ended, truncated, infos = environments.step(actions)
        assert not truncated.any() and ended.tolist() == [step == STEPS - 1] * 2
        for i, path in enumerate(alone):
            assert np.array_equal(observations["latent"][i], path.observations[step + 1]["latent"])
            assert rewards[i] == path.rewards[step]
        assert ("log_prob" in infos) == (step < STEPS - 1)
    for i, path in enumerate(alone):
        assert np.array_equal(infos["sample"][i], path.infos[-1]["sample"])
        assert infos["components"]["red"][i] == path.infos[-1]["components"]["red"]
    # The step after the end is no transition: it resets, whatever the action.
    observations, rewards, ended, _, infos = environments.step(actions)
    assert observations["step"].tolist() == [0, 0] and rewards.tolist() == [0, 0] and not ended.any()
    assert (infos["std"] > 0).all() and "sample" not in infos
    for i, seed in enumerate((3, 4)):
        environment = made(generator)
        environment.reset(seed=seed)
        assert np.array_equal(environment.reset()[0]["latent"], observations["latent"][i])


# The rollout ------------------------------------------------------------------------------------------------------

SETTINGS = {
    "cps": {"transition": partial(cps, noise=0.7)},
    "flow_sde": {"transition": partial(flow_sde, noise=0.7)},
    "ddim_eta": {"transition": partial(ddim_eta, noise=1.0)},
    "window": {"stochastic_steps": [1, 2]},
    "guided": {"guidance_scale": 3.0},
    "bfloat16": {"dtype": torch.bfloat16},
    "ode": {"stochastic_steps": []},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_an_episode_repeats_the_rollout_of_its_seed_to_the_bit(generator, settings):
    policy = DenoisingPolicy(generator, steps=STEPS, micro_batch=1, **settings)
    for prompt in PROMPTS[:2]:
        path = drive(made(generator, **settings), seed=11, options={"prompt": prompt})
        rollout = policy.rollout([prompt], seeds=torch.tensor([path.infos[0]["seed"]]))
        states = np.stack([observation["latent"] for observation in path.observations])
        assert np.array_equal(states, rollout.states[0].float().numpy())
        assert np.array_equal(path.infos[-1]["sample"], rollout.samples[0].numpy())
        assert path.rewards[-1] == REDNESS(rollout.samples, [prompt]).item()
        for step in range(STEPS):
            before, after = path.infos[step], path.infos[step + 1]
            assert (before["std"] > 0) == ("log_prob" in after) == bool(rollout.stochastic[step])
            if rollout.stochastic[step]:
                assert after["log_prob"] == rollout.log_probs[0, step].item()
                mean, std = policy.distribution(rollout, step)
                assert np.array_equal(before["mean"], mean[0].detach().numpy()) and before["std"] == std.item()


def test_in_a_larger_micro_batch_it_is_the_same_but_for_rounding(generator):
    paths = [drive(made(generator), seed=seed, options={"prompt": PROMPTS[0]}) for seed in range(3)]
    numbers = torch.tensor([path.infos[0]["seed"] for path in paths])
    rollout = DenoisingPolicy(generator, steps=STEPS).rollout([PROMPTS[0]] * 3, seeds=numbers)
    states = np.stack([[observation["latent"] for observation in path.observations] for path in paths])
    torch.testing.assert_close(torch.from_numpy(states), rollout.states, rtol=0, atol=2e-5)


def test_log_prob_is_that_of_the_action_taken_and_not_of_the_policys_own(generator):
    environment = made(generator)
    _, info = environment.reset(seed=5)
    action = info["mean"] + 0.3
    _, _, _, _, after = environment.step(action)
    normal = torch.distributions.Normal(torch.from_numpy(info["mean"]).double(), float(info["std"]))
    assert after["log_prob"] == pytest.approx(normal.log_prob(torch.from_numpy(action)).mean().item(), abs=1e-6)


def test_the_weights_it_was_given_are_those_it_uses(generator):
    """An agent that trains the generator meets the changed generator at the next reset."""
    student = generator.student()
    environment = made(student)
    before = environment.reset(seed=0)[1]["mean"]
    with torch.no_grad():
        for parameter in student.transformer.parameters():
            parameter.add_(0.02)
    after = environment.reset(seed=0)[1]["mean"]
    assert np.abs(after - before).max() > 1e-3
    assert np.array_equal(made(generator).reset(seed=0)[1]["mean"], before)


# Chance -----------------------------------------------------------------------------------------------------------


def test_a_seed_fixes_everything_and_another_changes_it(generator):
    first, again, other = (drive(made(generator), seed=seed) for seed in (1, 1, 2))
    for name in ("observations", "infos", "rewards"):
        assert all(same(a, b) for a, b in zip(getattr(first, name), getattr(again, name), strict=True))
    assert not np.array_equal(first.observations[0]["latent"], other.observations[0]["latent"])
    # Episodes that follow without a seed differ from each other, and repeat after the same seed.
    environment, runs = made(generator), []
    for _ in range(2):
        environment.reset(seed=1)
        runs.append([environment.reset() for _ in range(12)])
    assert all(same(a, b) for left, right in zip(*runs, strict=True) for a, b in zip(left, right, strict=True))
    assert len({info["seed"] for _, info in runs[0]}) == 12
    assert {info["prompt"] for _, info in runs[0]} == set(PROMPTS)


def test_a_chosen_prompt_leaves_the_noise_as_it_was(generator):
    environment = made(generator)
    free = environment.reset(seed=1)[0]
    chosen, info = environment.reset(seed=1, options={"prompt": "four yellow triangles"})  # not among its own
    assert np.array_equal(free["latent"], chosen["latent"]) and info["prompt"] == "four yellow triangles"


def test_first_latents_are_standard_normal(generator):
    environment = bare(generator)
    latents = np.stack([environment.reset(seed=seed)[0]["latent"] for seed in range(40)])
    assert abs(latents.mean()) < 4 / np.sqrt(latents.size) and abs(latents.std() - 1) < 4 / np.sqrt(2 * latents.size)


def test_torchs_own_stream_is_left_alone(generator):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    drive(made(generator), seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_what_an_agent_does_to_its_arrays_changes_nothing(generator):
    spoilt, untouched = (made(generator, render_mode="rgb_array") for _ in range(2))
    (observation, info), (expected, _) = spoilt.reset(seed=4), untouched.reset(seed=4)
    stream = stream_of(info)
    for _ in range(STEPS):
        noise = torch.randn(4, 8, 8, generator=stream).numpy() if info["std"] > 0 else np.float32(0)
        action = info["mean"] + info["std"] * noise
        expected = untouched.step(action.copy())
        for array in (observation["latent"], observation["tokens"], info["mean"]):
            array[...] = 1
        observation, _, _, _, info = spoilt.step(action)
        action[...] = 1
        assert same(observation, expected[0]) and same(info, expected[-1])
        observation["latent"][...] = 1
        assert np.array_equal(spoilt.render(), untouched.render())


# What is refused --------------------------------------------------------------------------------------------------


def test_an_action_that_is_no_latent_is_refused_and_the_episode_goes_on(generator):
    environment = bare(generator)
    _, info = environment.reset(seed=0)
    spoilt = info["mean"].copy()
    for value in (np.nan, np.inf, -np.inf):
        spoilt[0, 3, 3] = value
        with pytest.raises(RolloutError, match="NaN or infinity.*mean"):
            environment.step(spoilt)
    for wrong in (np.zeros((4, 8)), np.zeros((1, 4, 8, 8)), np.zeros((8, 8, 4)), 0.5):
        with pytest.raises(RolloutError, match=r"the action has shape .* a latent has \[4, 8, 8\]"):
            environment.step(wrong)
    for wrong in ("up", None, {"latent": info["mean"]}):
        with pytest.raises(RolloutError):
            environment.step(wrong)
    observation, *_ = environment.step(info["mean"].tolist())
    assert observation["step"] == 1 and np.array_equal(observation["latent"], info["mean"])


def test_an_action_that_overflows_the_stored_dtype_is_refused(generator):
    environment = bare(generator, dtype=torch.float16)
    environment.reset(seed=0)
    with pytest.raises(RolloutError, match="infinity in torch.float16"):
        environment.step(np.full((4, 8, 8), 1e5, np.float32))


def test_no_step_without_an_episode(generator):
    environment = bare(generator, render_mode="rgb_array")
    zeros = np.zeros((4, 8, 8), np.float32)
    with pytest.raises(RolloutError, match=r"Call reset\(\)"):
        environment.step(zeros)
    with pytest.raises(RolloutError, match=r"before the first reset\(\)"):
        environment.render()
    drive(environment, seed=0)
    with pytest.raises(RolloutError, match=r"has ended.*Call reset\(\)"):
        environment.step(zeros)
    environment.reset()
    assert environment.step(zeros)[0]["step"] == 1


def test_an_unknown_prompt_is_refused_and_the_episode_goes_on(generator):
    environment = bare(generator)
    with pytest.raises(PromptError, match="purple"):
        bare(generator, prompts=["a purple circle"])
    environment.reset(seed=0, options={"prompt": PROMPTS[1]})
    environment.step(np.zeros((4, 8, 8)))
    for wrong in ("a purple circle", 3):
        with pytest.raises(PromptError):
            environment.reset(options={"prompt": wrong})
    observation, *_, info = environment.step(np.zeros((4, 8, 8)))
    assert observation["step"] == 2 and info["prompt"] == PROMPTS[1]
    with pytest.raises(RolloutError, match="promt.*'prompt' alone"):
        environment.reset(options={"promt": PROMPTS[0]})


@pytest.mark.parametrize(
    "changed, error, message",
    [
        ({"reward": None}, RewardError, r"reward=pixelpolicy\.rewards\.shapes_dense\(\)"),
        ({"reward": shapes_dense}, RewardError, "a Reward is needed"),
        ({"prompts": ()}, PromptError, "at least one text"),
        ({"prompts": "a red circle"}, PromptError, r"a list of at least one text"),
        ({"steps": 0}, RolloutError, "at least 1"),
        ({"stochastic_steps": [STEPS - 1]}, RolloutError, "cannot be stochastic"),
        ({"render_mode": "human"}, RolloutError, "rgb_array"),
    ],
)
def test_settings_that_cannot_be_are_named(generator, changed, error, message):
    with pytest.raises(error, match=message):
        bare(generator, **changed)


def test_without_a_reward_gymnasium_says_what_to_pass():
    with pytest.raises(RewardError, match=r"shapes_dense\(\)"):
        gymnasium.make(ENVIRONMENT_ID)


def test_a_reward_that_fails_says_so_at_the_end(generator):
    environment = made(generator, reward=Reward("broken", lambda pictures, prompts: pictures.mean((1, 2, 3)) * np.nan))
    with pytest.raises(RewardError, match="'broken' returned nan"):
        drive(environment, seed=0)


# Rewards, pictures, other generators ------------------------------------------------------------------------------


def test_a_sum_of_rewards_is_paid_whole_and_told_in_parts(generator):
    path = drive(made(generator, reward=2 * REDNESS + 0.5 * jpeg_compressibility()), seed=0)
    components = path.infos[-1]["components"]
    assert set(components) == {"red", "compressibility"} and components["compressibility"] < -0.3
    assert components["red"] == pytest.approx(path.infos[-1]["sample"][0].mean(), abs=1e-6)
    assert path.rewards[-1] == pytest.approx(2 * components["red"] + 0.5 * components["compressibility"], rel=1e-6)


def test_the_reward_is_told_the_prompt_of_the_episode(generator):
    lengths = Reward("letters", lambda pictures, prompts: torch.tensor([float(len(prompt)) for prompt in prompts]))
    environment = made(generator, reward=lengths)
    for prompt in [*PROMPTS, "four yellow triangles"]:
        assert drive(environment, options={"prompt": prompt}).rewards == [0, 0, 0, len(prompt)]


def test_rendering_decodes_the_latent_as_it_is(generator):
    environment = made(generator, render_mode="rgb_array")
    observation, info = environment.reset(seed=0)
    for step in range(STEPS + 1):
        frame = environment.render()
        assert frame.shape == (32, 32, 3) and frame.dtype == np.uint8
        decoded = generator.decode(torch.from_numpy(observation["latent"])[None])[0].detach()
        for row, column, channel in ((0, 0, 0), (5, 20, 1), (31, 2, 2)):
            level = (decoded[channel, row, column].item() + 1) / 2 * 255
            assert abs(int(frame[row, column, channel]) - level) <= 0.501
        if step < STEPS:
            observation, _, _, _, info = environment.step(info["mean"])
    with pytest.warns(UserWarning, match="rgb_array"):
        assert bare(generator).render() is None


def test_without_a_generator_it_is_the_shipped_one():
    environment = DenoisingEnv(shapes_dense(), ["a red circle"], steps=2)
    path = drive(environment, seed=0)
    assert 0 <= path.rewards[-1] <= 1 and environment.policy.generator.transformer.config.num_layers > 1


class Points:
    """A `Denoiser` that is no diffusion model: every prompt draws the same two numbers, exactly."""

    device, latent_shape = torch.device("cpu"), (2,)

    def encode(self, prompts):
        return (torch.tensor([[0.5, -0.5]]).expand(len(prompts), -1),)

    def velocity(self, latents, sigma, target):
        return (latents - target) / sigma

    def decode(self, latents):
        return latents

    def sigmas(self, steps):
        return torch.linspace(1, 0, steps + 1)


def test_any_denoiser_will_do_if_its_prompts_can_be_told_in_tokens():
    nearness = Reward("near", lambda points, prompts: -(points - torch.tensor([0.5, -0.5])).abs().sum(1))
    with pytest.raises(PromptError, match="pass tokenizer="):
        bare(Points(), reward=nearness)
    letters = lambda texts: torch.tensor([[ord(c) for c in text.ljust(40)] for text in texts])  # noqa: E731
    environment = made(Points(), reward=nearness, tokenizer=(letters, 128))
    assert environment.observation_space["tokens"].nvec.tolist() == [128] * 40
    path = drive(environment, seed=0, options={"prompt": "anything at all"})
    assert "".join(map(chr, path.observations[0]["tokens"])).strip() == "anything at all"
    assert path.rewards[-1] == pytest.approx(0, abs=1e-6)
