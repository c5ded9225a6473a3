"""The project's own errors. Each message says what was given, what was expected, and what to do."""


class PixelPolicyError(Exception):
    """Base of every error that this library raises on purpose."""


class PromptError(PixelPolicyError, ValueError):
    """A prompt lies outside a world's vocabulary."""


class SizeError(PixelPolicyError, ValueError):
    """Pictures have, or were asked for in, a size that a model or a verifier cannot work with."""


class CheckpointError(PixelPolicyError):
    """A checkpoint is missing, truncated, altered, or could not be saved whole."""


class RewardError(PixelPolicyError):
    """A reward raised, or returned NaN or the wrong shape."""


class RolloutError(PixelPolicyError, ValueError):
    """A rollout is asked for something it does not have, such as the density of a deterministic step."""


class ProfileError(PixelPolicyError, ValueError):
    """PIXELPOLICY_PROFILE names no profile, or a profile asks for what this machine lacks."""


class LabError(PixelPolicyError):
    """A lab's source is malformed, or a lab's kernel died while it ran."""


class GroupError(PixelPolicyError, ValueError):
    """A group of samples is too small to compare its members."""


class TrainingError(PixelPolicyError):
    """Training cannot begin or go on: nothing to train, or the gradient is no number."""


class AtlasError(PixelPolicyError):
    """The data of the literature has a fault, or the bibliography made from it could not be read or written."""


class FigureError(PixelPolicyError, ValueError):
    """A figure or a widget lacks its alternative text, or its parts do not fit together."""


class BookError(PixelPolicyError):
    """The book cannot be built, or an executed lab may not be kept for it."""


class ControlError(PixelPolicyError, ValueError):
    """An environment cannot be played as asked: closed, of the wrong spaces, or with an episode that never ends."""


class GradingError(PixelPolicyError):
    """Submissions cannot be graded: none were found, or this machine cannot shut them in."""


class ReleaseError(PixelPolicyError):
    """An assignment cannot be made: the folder is not empty, or something could not be written."""
