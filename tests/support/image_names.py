"""Names of images as an engine lists them, and names that no image can have."""

from tests.support.fake_engine import json_answer

HOSTILE = [
    "$(touch evil):x",
    "`touch evil`",
    "a;touch evil:1",
    "x\n:y",
    "x y:z",
    "-o:x",
    "nginx:\x1b[2J",
    "../../x",
    "'x",
    5,
]
IMAGES = json_answer(
    [
        {"RepoTags": ["nginx:latest", "nginx:1.27"]},
        {"RepoTags": ["localhost:5000/team/app:v1"]},
        {"RepoTags": None},
        {"RepoTags": ["<none>:<none>"]},
        {"RepoTags": HOSTILE},
        "nonsense",
    ]
)
"""What the engine of these tests has."""
