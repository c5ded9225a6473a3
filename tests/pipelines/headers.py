"""The table on the real model in a lab's header."""

import re


def rows(text: str) -> dict[str, str]:
    """What stands beside ``disk`` and each kind of ``VRAM`` in the table of a lab's source."""
    return dict(re.findall(r"^# \| (disk|VRAM, \w+).*? \| (.*) \|$", text, flags=re.MULTILINE))


def command(text: str) -> str:
    """The command that fetches the weights, on one line."""
    found = re.search(r"```bash\n# (hf .*?)\n# ```", text, flags=re.DOTALL)[1]
    return re.sub(r"\s*\\\n#\s*", " ", found)
