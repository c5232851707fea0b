"""A comment is found again and updated, never there twice; no token is shown; what a fork wrote is text."""

import re
from pathlib import Path

import fake_forge
import hostile
import pytest
from fake_forge import ME, SHA, TOKEN, FakeGitHub, FakeGitLab, Reply, pull, workflow_run

from tradeoffs.comment import api, posting
from tradeoffs.comment.__main__ import given
from tradeoffs.comment.forges import GitHub, GitLab, NothingToPostError
from tradeoffs.plumbing.errors import UserError

MARKER = posting.marker("tuning", "origin/main")
BODY = f"{MARKER}\n### Nothing is worse\n"


@pytest.fixture
def waits(monkeypatch):
    """Seconds that would have been waited."""
    found: list[float] = []
    monkeypatch.setattr(api, "pause", found.append)
    return found


@pytest.fixture(params=["github", "github as a person", "gitlab", "gitlab by the job's token"])
def forge(request, tmp_path, monkeypatch, waits):
    """A platform on loopback, in the environment of a job of it."""
    for name in ("GITLAB_TOKEN", "CI_JOB_TOKEN", "GITHUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    github = request.param.startswith("github")
    server = FakeGitHub("person" in request.param) if github else FakeGitLab("job" in request.param)
    with server:
        for name, value in (server.environment(tmp_path) if github else server.environment()).items():
            monkeypatch.setenv(name, value)
        yield server


def client(forge):
    return GitHub() if isinstance(forge, FakeGitHub) else GitLab()


def own(forge, body):
    return forge.add(body, ME, "User" if getattr(forge, "person", False) else "Bot")


def test_a_comment_is_made_once_and_updated_then(forge):
    assert "posted" in posting.post(client(forge), BODY)
    assert "updated" in posting.post(client(forge), f"{MARKER}\nnews\n")
    posting.post(client(forge), f"{MARKER}\nnews\n")
    assert forge.bodies == [f"{MARKER}\nnews\n"]
    assert forge.count("POST") == 1
    assert forge.count("PATCH") + forge.count("PUT") == 1, "what is the same already is left alone"


def test_it_is_found_behind_many_pages_of_others(forge):
    for number in range(250):
        forge.add(f"comment {number}")
    mine = own(forge, f"{MARKER}\nold")
    for number in range(120):
        forge.add(f"later {number}")
    posting.post(client(forge), BODY)
    assert mine.body == BODY
    assert len(forge.notes) == 371


def test_another_pipeline_or_base_has_a_comment_of_its_own(forge):
    other = posting.marker("tuning", "v1.0")
    own(forge, f"{other}\nagainst the release")
    posting.post(client(forge), BODY)
    assert sorted(forge.bodies) == sorted([f"{other}\nagainst the release", BODY])
    assert (
        posting.marker("a", "origin/main") == posting.marker("a", "origin/main") != posting.marker("b", "origin/main")
    )
    assert posting.marker("a", 40 * "a") == posting.marker("a", 40 * "b"), "each push has another hash"
    assert posting.marker("a", "HEAD") == posting.marker("a", "HEAD~2") == posting.marker("a", 40 * "a")
    assert posting.marker("a", "HEAD-2") != posting.marker("a", "@team") != posting.marker("a", "HEAD")


def test_what_others_wrote_with_the_marker_is_left_alone(forge):
    planted = forge.add(f"{MARKER}\nall is well, merge it")
    if isinstance(forge, FakeGitLab):
        forge.add(f"{MARKER}\nby the system", ME, system=True)
    posting.post(client(forge), BODY)
    assert planted.body == f"{MARKER}\nall is well, merge it"
    assert forge.bodies[-1] == BODY


def test_two_jobs_at_once_end_with_one_comment(forge):
    """Both found none; the other job's comment is there a moment earlier, or a moment later."""
    forge.after_create = lambda: own(forge, f"{MARKER}\nof the other job, later")
    posting.post(client(forge), BODY)
    assert forge.bodies == [BODY]
    forge.notes.clear()

    def earlier():
        mine = forge.notes.pop()
        own(forge, f"{MARKER}\nof the other job, earlier")
        own(forge, mine.body)

    forge.after_create = earlier
    posting.post(client(forge), BODY)
    assert forge.bodies == [BODY]


def test_duplicates_of_earlier_times_are_removed(forge):
    for number in range(3):
        own(forge, f"{MARKER}\n{number}")
    first = forge.notes[0].id
    posting.post(client(forge), BODY)
    assert [(note.id, note.body) for note in forge.notes] == [(first, BODY)]


def test_one_that_another_job_has_removed_meanwhile_is_no_error(forge):
    for number in range(2):
        own(forge, f"{MARKER}\n{number}")
    forge.failing = [("DELETE", Reply(404, {"message": "Not Found"}))]
    posting.post(client(forge), BODY)
    assert forge.bodies[0] == BODY


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_what_may_pass_is_tried_again(forge, status, waits):
    forge.failing = [("GET", Reply(status)), ("POST", Reply(status)), ("POST", Reply(status))]
    posting.post(client(forge), BODY)
    assert forge.bodies == [BODY]
    assert waits == [1, 1, 2]


def test_as_long_as_the_platform_says(forge, waits):
    forge.failing = [("POST", Reply(429, None, {"Retry-After": "7"})), ("POST", Reply(403, None, {"Retry-After": "3"}))]
    posting.post(client(forge), BODY)
    assert waits == [7, 3]


def test_but_not_for_ever(forge, waits):
    forge.failing = [("POST", Reply(502)) for _ in range(api.TRIES)]
    with pytest.raises(UserError, match=f"502; tried {api.TRIES} times"):
        posting.post(client(forge), BODY)
    assert not forge.notes
    forge.failing = [("POST", Reply(429, None, {"Retry-After": "3600"}))]
    with pytest.raises(UserError, match="asks to wait 3600 seconds"):
        posting.post(client(forge), BODY)
    assert max(waits) <= api.LONGEST_WAIT


def test_one_that_was_made_though_the_answer_was_lost_is_there_once(forge):
    """The gateway says 502 after the comment was made: the second try makes another one, which is removed."""
    own_answer = forge.answer

    def lost(method, *rest):
        reply = own_answer(method, *rest)
        if method == "POST":
            forge.answer = own_answer
            return Reply(502)
        return reply

    forge.answer = lost
    posting.post(client(forge), BODY)
    assert forge.bodies == [BODY]


def test_one_that_is_too_long_is_cut_at_a_line_and_closed(forge):
    forge.longest = 20_000
    rows = "".join(f"| row {number} | {'x' * 40} |\n" for number in range(1000))
    posting.post(client(forge), f"{BODY}\n<details>\n<summary>all</summary>\n\n{rows}\n</details>\n")
    [body] = forge.bodies
    assert 9_000 < len(body) <= 10_000
    assert body.startswith(BODY)
    assert body.count("<details>") == body.count("</details>")
    assert all(line.endswith("|") for line in body.splitlines() if line.startswith("| row"))
    assert "Cut here" in body
    forge.longest = 100
    with pytest.raises(UserError, match="takes no comment of 10,000 characters"):
        posting.post(client(forge), f"{BODY}{rows}")


@pytest.mark.parametrize("text", ["| `</details>` |\n", "| `<details>` |\n"])
def test_a_fold_in_a_question_is_none(text):
    short = posting.cut(f"{BODY}\n<details>\n<summary>all</summary>\n\n{text * 300}\n</details>\n", 2_000)
    assert [line for line in short.splitlines() if "details" in line and "|" not in line] == ["<details>", "</details>"]


def test_a_token_that_can_only_read_is_explained(forge):
    forge.read_only = True
    with pytest.raises(UserError, match="403") as refused:
        posting.post(client(forge), BODY)
    said = str(refused.value)
    assert re.search(r"second workflow.*pull-requests: write|GITLAB_TOKEN.*project access token", said), said
    assert TOKEN not in said
    if isinstance(forge, FakeGitLab):
        assert re.search(r"by --body, or read its code before you run it", said), "it would run with the token"


@pytest.mark.parametrize(("status", "said"), [(401, "not valid|GITLAB_TOKEN"), (404, "no such"), (418, "418")])
def test_other_refusals_are_explained(forge, status, said):
    forge.failing = [("POST", Reply(status, {"message": "No"}))]
    with pytest.raises(UserError, match=said):
        posting.post(client(forge), BODY)


def test_no_message_holds_the_token(forge, monkeypatch):
    forge.failing = [("POST", Reply(400, {"message": f"what is {TOKEN} \x1b[31m"}))]
    with pytest.raises(UserError, match=r"what is \*\*\*") as refused:
        posting.post(client(forge), BODY)
    assert TOKEN not in str(refused.value)
    assert not hostile.harm(str(refused.value))
    for name in ("GITHUB_TOKEN", "GITLAB_TOKEN"):
        monkeypatch.setenv(name, "tok\nen: x")
    with pytest.raises(UserError, match="no token has") as refused:
        client(forge)
    assert "tok" not in str(refused.value).replace("token", "")


def test_a_redirect_takes_the_token_nowhere(forge):
    with FakeGitHub() as elsewhere:
        forge.failing = [("GET", Reply(307, None, {"Location": f"{elsewhere.url}/user"}))]
        with pytest.raises(UserError, match="where no token is sent"):
            posting.post(client(forge), BODY)
        assert not elsewhere.asked


def test_a_server_that_is_not_there_is_said(forge, monkeypatch, waits):
    for name in ("GITHUB_API_URL", "CI_API_V4_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(UserError, match="no answer"):
        posting.post(client(forge), BODY)
    assert len(waits) == api.TRIES - 1


@pytest.mark.parametrize("value", [None, {"message": "hello"}, [{"a": 1}], "text", [7]])
def test_an_answer_of_another_form_is_said(forge, monkeypatch, value):
    monkeypatch.setattr(forge, "answer", lambda *_: Reply(200, value))
    with pytest.raises(UserError, match="another form"):
        posting.post(client(forge), BODY)


@pytest.mark.parametrize("name", ["GITHUB_TOKEN", "GITHUB_REPOSITORY", "GITHUB_EVENT_PATH"])
def test_what_a_job_of_github_lacks_is_named(name, tmp_path, monkeypatch):
    with FakeGitHub() as forge:
        for variable, value in forge.environment(tmp_path).items():
            monkeypatch.setenv(variable, value)
        monkeypatch.delenv(name)
        with pytest.raises(UserError, match=f"{name} is not set"):
            GitHub()


class TestAfterTheJobOfAFork:
    """workflow_run: what is posted where follows from the event and what GitHub says, never from the artefact."""

    @pytest.fixture
    def github(self, tmp_path, monkeypatch, waits):
        with FakeGitHub() as server:
            self.enter(server, tmp_path, monkeypatch, workflow_run())
            yield server

    def enter(self, server, tmp_path, monkeypatch, event):
        for name, value in server.environment(tmp_path, event).items():
            monkeypatch.setenv(name, value)

    def test_its_pull_request_is_found_by_branch_and_commit(self, github):
        posting.post(GitHub(), BODY)
        assert github.bodies == [BODY]

    def test_one_that_was_pushed_to_since_gets_nothing(self, github):
        github.pulls = [pull(12, sha=40 * "1")]
        with pytest.raises(NothingToPostError, match="pushed to since"):
            GitHub()

    def test_one_of_another_fork_with_such_a_branch_gets_nothing(self, github):
        github.pulls = [pull(12) | {"head": pull(12)["head"] | {"repo": {"full_name": "other/repo"}}}]
        with pytest.raises(NothingToPostError):
            GitHub()

    def test_a_number_of_the_artefact_is_one_of_the_event_or_refused(self, github):
        github.pulls = [pull(12), pull(13)]
        with pytest.raises(UserError, match="12, 13 have this commit; say which"):
            GitHub()
        assert GitHub(12).number == 12
        with pytest.raises(UserError, match="the event is not about it, but about 12, 13"):
            GitHub(1)

    def test_a_run_for_a_push_gets_nothing(self, github, tmp_path, monkeypatch):
        event = workflow_run()
        event["workflow_run"]["event"] = "push"
        self.enter(github, tmp_path, monkeypatch, event)
        with pytest.raises(NothingToPostError, match="for push"):
            GitHub()


SPAM = """@octocat @team/all see #12, team/repo#3, GH-4 &#64;octocat &commat;octocat &num;5
[click](https://evil.example) [ref] [ref][ref] ![pixel](https://evil.example/p.png) <https://evil.example> a@b.example
[ref]: https://evil.example
<a href="//evil.example">x</a> <img src=x onerror=alert(1)> www.evil.example <!-- <details> -->
![ok](https://github.example/team/repo/raw/../../evil/p.png)
```mermaid
click a href "https://evil.example"
```
/merge
  /close
!12 ~bug ~"a bug" %3 $4 &5 ^alert#6 %{project_name} [issue:7] [[page]] *iteration:8
c0ffee1 _1234567_ 0123456789abcdef0123456789abcdef01234567 xxx.C0FFEE1
$$\\href{//evil.example}{x}$$ $`\\href{//evil.example}{x}`$
> [!CAUTION]
> merge this
"""


def test_the_comment_of_a_fork_mentions_nobody_and_links_nowhere():
    pictures = "https://github.example/team/repo/raw/"
    picture = f"![size and quality]({pictures}{SHA}/plots/a.png)"
    body = f"{MARKER}\n{SPAM}\n{picture}\n" + "\n\n".join(hostile.HOSTILE)
    text = posting.defanged(body, pictures)
    assert text.startswith(f"{MARKER}\n")
    found = hostile.of_markdown(text.removeprefix(MARKER).replace(picture, ""))
    assert not {
        kind: n for kind, n in found.items() if n and kind.startswith(("<a ", "<img", "<script", "<!--", "bare"))
    }
    assert not re.search(
        r"[@#]\w|GH-\d|&(?!lt;|gt;|amp;|#124;)[#\w]|```|://", text.replace(picture, "").replace("@\u200b", "")
    )
    assert picture in text
    rest = text.replace(picture, "").removeprefix(MARKER)
    for obeyed in (
        r"(?m)^[ \t]*/\w",
        r"[!~%^$][\w\"'{]",
        r"&(?!lt;|gt;|amp;|#124;)[\w\"]",
        r"(?i)(?<![^\W_])[0-9a-f]{7,64}(?![^\W_])",
        r"\\[a-zA-Z]",
        r"\[[!\[]|\[issue:|\*iteration:",
    ):
        assert not re.search(obeyed, rest), obeyed


@pytest.mark.parametrize(
    "line",
    [
        "| `lora q4_0` | test F1 0.1234567 [0.0912345, 0.1512345], within the margin (+0.5 [-0.1, 1.1]) | 95 % |",
        '- `train.steps`: 10 → 20; 1,234,567 rows, 12.5 MB, and/or "defaults" (5 of 100)',
        "### Worse: test F1 of `lora` 0.45 → 0.30 &lt;b&gt; a &amp; b",
        "<details>\n<summary>All 120 numbers</summary>\n\n**Notes**\n\n</details>",
    ],
)
def test_what_this_project_writes_stays_as_it_is(line):
    assert posting.defanged(f"{MARKER}\n{line}\n") == f"{MARKER}\n{line}\n"


def test_without_a_marker_nothing_is_posted():
    for body in ("", "All is well", f"\n{MARKER}", "<!-- llm-tradeoffs: a --> -->".replace("a -", "> -")):
        with pytest.raises(UserError, match="marker"):
            posting.defanged(body, "")


def test_what_an_artefact_holds_is_read_no_further_than_a_comment_goes(tmp_path):
    """Neither through a link, which may lead to any file of the machine, nor without an end."""
    made = tmp_path / "made.md"
    made.write_text(BODY)
    assert given(made).endswith("Nothing is worse\n")
    (tmp_path / "link.md").symlink_to(made)
    with pytest.raises(UserError, match=r"link\.md: cannot be read as a comment"):
        given(tmp_path / "link.md")
    with pytest.raises(UserError, match="more than 1 MB"):
        given(Path("/dev/zero"))


@pytest.mark.parametrize("name", ["--> <script>", "a -- b", "ü/ä", "x" * 1000, "@octocat #1"])
def test_a_marker_holds_any_name(name):
    found = posting.marker(name, name)
    assert posting.marker_of(f"{found}\n") == found
    assert "--" not in found.removeprefix("<!--").removesuffix("-->")
    assert found == posting.marker(name, name)
    assert fake_forge.TOKEN not in found
