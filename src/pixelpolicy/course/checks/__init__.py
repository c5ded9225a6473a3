"""What each lab's exercises must do: one module a lab, `lab12.py` for lab 12, with a list `EXERCISES`.

`pixelpolicy.course.checking` documents the form. PIXELPOLICY_CHECKS names a further folder of such modules, for labs
that live outside the package.
"""

import os

if _further := os.environ.get("PIXELPOLICY_CHECKS"):
    __path__.append(_further)
