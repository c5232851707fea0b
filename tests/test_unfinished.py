"""What was left unfinished is gone on with only while nothing that it follows from has changed."""

import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[1]
# In one process, as the code's files are read anew each time: work of one part is begun for each room, whose file that
# the process has loaded is then changed, and asked for again; it prints the rooms and whether the part was still there.
PROCESS = """
import sys
from importlib import import_module
from pathlib import Path
import pyarrow as pa
from tradeoffs.common.unfinished import Unfinished

def work():
    return Unfinished("demo", pa.schema([("id", pa.string())]), [], 1)

for room in sys.argv[1:]:
    module = import_module(room.replace("/", ".") + ".one_more")
    work().part("test", lambda: [{"id": "a"}])
    kept = work().has("test")
    with Path(module.__file__).open("a") as file:
        file.write("# a comment\\n")
    print(room, kept, work().has("test"))
"""


def test_a_change_of_any_rooms_code_makes_unfinished_work_begin_anew(tmp_path):
    for name in ("stages", "tradeoffs"):
        shutil.copytree(REPO / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    rooms = sorted({path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/**/*.py")})
    assert {"stages", "tradeoffs", "tradeoffs/finetune", "tradeoffs/evaluate"} < set(rooms)
    for room in rooms:
        (tmp_path / room / "one_more.py").write_text("")
    done = subprocess.run([sys.executable, "-c", PROCESS, *rooms], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace(
        "demo: an earlier run was cut short; going on after its 1 finished parts\n", ""
    ) == "".join(f"{room} True False\n" for room in rooms)
