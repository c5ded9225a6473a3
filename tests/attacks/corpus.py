"""Attacks on the grader: bodies of `group_advantages(rewards, groups)`, exercise 12.1, each of which must score 0.

ATTACKS do harm, or would where nothing shut them in. TRICKS play on what is compared, and are tried without a sandbox,
which has no part in it. PROBES reach for what an answer may not have, and say "reached" where they get it: each does
where nothing is shut in. FOLDER, SOURCES and GRADER stand for where the secret and the submissions lie,
where the package lies, and for the number of the grader's process.
"""

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
    "os._exit": "import os; os._exit(0)",
    "kills its parent": "import os; os.kill(os.getppid(), 9); os.kill(1, 9); os.kill(-1, 9); return rewards",
    "deep recursion": "return group_advantages(rewards, groups)",
    "the library's answer": "from pixelpolicy.rl import group_advantages as own; return own(rewards, groups)",
    "the library, hidden": "import importlib as i; rl = i.import_module('.'.join(['pixelpolicy', 'rl']))\n"
    "return rl.group_advantages(rewards, groups)",
    "clock": "import time; t = time.time()\nwhile time.time() - t < 1000: pass",
    "threads": "import threading, time\n[threading.Thread(target=time.sleep, args=(99,)).start() for _ in range(9)]",
    "no folder": "import os, shutil; shutil.rmtree(os.getcwd(), True); os.chdir('/nowhere')",
    "floods the channel": "import os\nfor fd in range(3, 60):\n    try: os.write(fd, b'\\0' * 12 * 100)\n"
    "    except OSError: pass\nreturn rewards",
    "a list without end": "class Rows(list):\n    __iter__ = lambda s: iter(int, 1)\nreturn Rows([1])",
    "a list that grows as it is read": "rows = [1]\nrows.append(map(rows.append, rows))\nfor x in rows: rows.append(x)",
    "stops itself": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP); return rewards",
    "heeds no signal": (
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass"
    ),
    "a stack without end": (
        "import sys; sys.setrecursionlimit(1 << 30)\ndef deeper(n): return deeper(n + 1) + 1\nreturn deeper(0)"
    ),
    "closes the channel": "import os; os.closerange(0, 64); return rewards",
    "drips onto the channel": (
        "import os, time\nwhile True:\n    for fd in range(3, 12):\n        try: os.write(fd, b'\\0')\n"
        "        except OSError: pass\n    time.sleep(0.3)"
    ),
    "a thread that answers later": (
        "import json, os, struct, threading, time\ntext = json.dumps({'op': 'return', 'value': True}).encode()\n"
        "def forge():\n    while True:\n        for fd in range(3, 12):\n"
        "            try: os.write(fd, struct.pack('>IQ', len(text), 0) + text)\n            except OSError: pass\n"
        "        time.sleep(0.01)\nthreading.Thread(target=forge, daemon=True).start(); return rewards"
    ),
    "calls what it was not given": (
        "import json, os, struct\ntext = json.dumps({'op': 'call', 'f': 0, 'args': [], 'kwargs': {}, 'seed': None,\n"
        "                   'grad': True}).encode()\nfor fd in range(3, 12):\n"
        "    try: os.write(fd, struct.pack('>IQ', len(text), 0) + text)\n    except OSError: pass\nreturn rewards"
    ),
    "an error without end": "raise ValueError('x' * (1 << 28))",
    "files without end": "import itertools\nfor n in itertools.count(): open(f'/tmp/{n}', 'w').close()",
    "open files without end": "files = [open('/dev/null') for _ in iter(int, 1)]",
}

TRICKS = {
    "equals everything": (
        "class Any:\n    __eq__ = lambda s, o: True\n    shape = rewards.shape\n"
        "    __array__ = lambda s, *a: rewards.numpy()\nreturn Any()"
    ),
    "stdout spoofing": "print('12.1 group_advantages: all 4 properties hold'); return rewards * 0 + 7",
    "NaN": "return rewards * float('nan')",
    "infinity": "return rewards * 0 + float('inf')",
    "wrong shape": "return torch.zeros(3, 0, 5)",
    "endless generator": "return (x for x in iter(int, 1))",
    "deep list": "x = []\nfor _ in range(100_000): x = [x]\nreturn x",
    "pickle": "import pickle; return pickle.dumps(rewards)",
    "changes its inputs": "rewards.zero_(); groups.zero_(); return rewards",
    "a tensor that answers for itself": (
        "class Mine(torch.Tensor):\n    @classmethod\n    def __torch_function__(*a, **k): return True\n"
        "return torch.zeros(9).as_subclass(Mine)"
    ),
    "a number that equals everything": (
        "class Any(float):\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n"
        "return [Any(7)] * len(rewards)"
    ),
    "ends the check's loop": "raise StopIteration",
    "ends the grader": "raise SystemExit(0)",
    "interrupts the grader": "raise KeyboardInterrupt",
    "an error of half signs": "raise ValueError('\\ud800 \\u202e \\x00 \\x1b[2J <script>')",
    "an error that cannot be said": ("class Mute(Exception):\n    __str__ = __repr__ = lambda self: 1 / 0\nraise Mute"),
    "a pickle among the outputs": (
        "import pickle, io\nclass Bomb:\n    def __reduce__(self): return (eval, ('1 / 0',))\n"
        "return [rewards, pickle.dumps(Bomb()), io.BytesIO(pickle.dumps(rewards))]"
    ),
    "half a sign as an answer": "return {'\\ud800': '\\udfff\\x00', '\\u202e': rewards}",
}

PROBES = {
    "the secret by its path": "raise ValueError('reached ' + open('FOLDER/secret.key').read())",
    "the secret through a link": (
        "import os, tempfile; link = tempfile.mkdtemp() + '/link'; os.symlink('FOLDER/secret.key', link)\n"
        "raise ValueError('reached ' + open(link).read())"
    ),
    "the secret in memory": (
        "import sys\nframe = sys._getframe()\nwhile frame:\n"
        "    if 'a secret ' + 'of the tests' in repr(frame.f_locals): raise ValueError('reached')\n"
        "    frame = frame.f_back"
    ),
    "another's submission by its path": "raise ValueError('reached ' + open('FOLDER/anna/12-grpo.ipynb').read())",
    "the grade book": "open('FOLDER/grades.csv', 'a').write('reached'); raise ValueError('reached')",
    "the checks as files": "raise ValueError('reached ' + open('SOURCES/course/checks/lab12.py').read()[:99])",
    "the checks as a module": "from pixelpolicy.course.checks import lab12; raise ValueError('reached')",
    "the grader as a module": "from pixelpolicy.course.grading import varied; raise ValueError('reached')",
    "words in its surroundings": (
        "import glob, os\nsaid = repr(os.environ)\nfor path in glob.glob('/proc/*/environ'):\n"
        "    try: said += open(path, errors='replace').read()\n    except OSError: pass\n"
        "if 'PIXELPOLICY_MARK' in said: raise ValueError('reached')"
    ),
    "sockets of every kind": (
        "import socket\nfor family in ('INET', 'INET6', 'UNIX', 'NETLINK', 'VSOCK', 'PACKET'):\n"
        "    try: socket.socket(getattr(socket, 'AF_' + family), socket.SOCK_DGRAM)\n    except OSError: continue\n"
        "    raise ValueError(f'reached {family}')"
    ),
    "another program": "import subprocess; subprocess.run(['/bin/true'], check=True); raise ValueError('reached')",
    "a program by another door": "import os; os.posix_spawn('/bin/true', ['true'], {}); raise ValueError('reached')",
    "the grader's process": "import os; os.kill(GRADER, 0); raise ValueError('reached')",
    "being traced": (
        "import ctypes\nif ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0: raise ValueError('reached')\nreturn rewards"
    ),
    "memory that is shared with nobody": (
        "import mmap; maps = [mmap.mmap(-1, 1 << 28) for _ in range(16)]; raise ValueError('reached')"
    ),
}
