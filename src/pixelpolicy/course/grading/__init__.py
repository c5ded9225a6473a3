"""The instructor's kit: grading a class's notebooks without trusting them.

| file | what it does |
|---|---|
| `submissions` | finds notebooks, reads them warily, cuts one exercise's code out of one |
| `sandbox`, `child`, `limits` | a process for that code; what runs inside; what it may use |
| `backends` | what shuts it in: bubblewrap, Docker, or nothing |
| `wire` | the channel between the two: calls, arrays and gradients as JSON and bytes |
| `varied`, `prepare` | a lab's checks on inputs that follow from the instructor's secret; what may earn credit |
| `examine` | the verdict on one exercise |
| `grade` | a whole class in parallel, each verdict kept as it is done |
| `feedback`, `tables`, `report`, `alike` | what students, gradebooks and instructors get |
"""

from pixelpolicy.course.grading.backends import BACKENDS
from pixelpolicy.course.grading.grade import Grades, Paper, grade, read_secret
from pixelpolicy.course.grading.limits import Limits

__all__ = ["BACKENDS", "Grades", "Limits", "Paper", "grade", "read_secret"]
