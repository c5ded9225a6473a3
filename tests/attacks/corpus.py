"""Attacks on the grader: bodies of `group_advantages(rewards, groups)`, exercise 12.1, each of which must score 0."""

ATTACKS = {
    "endless loop": "while True: pass",
    "endless sleep": "import time; time.sleep(1000)",
    "fork bomb": "import os\nwhile True: os.fork()",
    "memory bomb": "x = [bytearray(1 << 24) for _ in range(10_000)]; return rewards",
    "disk bomb": "for n in range(1000): open(f'/tmp/{n}', 'wb').write(b'0' * (1 << 24))",
    "giant output": "return torch.zeros(1 << 27)",
    "network": "import socket; socket.create_connection(('127.0.0.1', 80), 1); return rewards",
    "reads the checks": "from pixelpolicy.course.checks import lab12; return lab12._advantages(rewards, groups)",
    "reads the secret": "import pathlib; return [p.read_text() for p in pathlib.Path('/').rglob('secret.key')]",
    "patches torch": "torch.allclose = lambda *a, **k: True; return rewards * 0 + 7",
    "patches the channel": "import wire; wire.Packer.__call__ = lambda self, x, **k: {'k': 'passed'}; return rewards",
    "equals everything": (
        "class Any:\n    __eq__ = lambda s, o: True\n    shape = rewards.shape\n"
        "    __array__ = lambda s, *a: rewards.numpy()\nreturn Any()"
    ),
    "stdout spoofing": "print('12.1 group_advantages: all 4 properties hold'); return rewards * 0 + 7",
    "os._exit": "import os; os._exit(0)",
    "kills its parent": "import os; os.kill(os.getppid(), 9); os.kill(1, 9); os.kill(-1, 9); return rewards",
    "NaN": "return rewards * float('nan')",
    "infinity": "return rewards * 0 + float('inf')",
    "wrong shape": "return torch.zeros(3, 0, 5)",
    "endless generator": "return (x for x in iter(int, 1))",
    "deep list": "x = []\nfor _ in range(100_000): x = [x]\nreturn x",
    "deep recursion": "return group_advantages(rewards, groups)",
    "pickle": "import pickle; return pickle.dumps(rewards)",
    "the library's answer": "from pixelpolicy.rl import group_advantages as own; return own(rewards, groups)",
    "the library, hidden": "import importlib as i; rl = i.import_module('.'.join(['pixelpolicy', 'rl']))\n"
    "return rl.group_advantages(rewards, groups)",
    "clock": "import time; t = time.time()\nwhile time.time() - t < 1000: pass",
    "threads": "import threading, time\n[threading.Thread(target=time.sleep, args=(99,)).start() for _ in range(9)]",
    "no folder": "import os, shutil; shutil.rmtree(os.getcwd(), True); os.chdir('/nowhere')",
    "changes its inputs": "rewards.zero_(); groups.zero_(); return rewards",
    "floods the channel": "import os\nfor fd in range(3, 60):\n    try: os.write(fd, b'\\0' * 12 * 100)\n"
    "    except OSError: pass\nreturn rewards",
}
