"""The reply store: SQLite files of every sort, and PostgreSQL at the URL IQA_CHECKS_POSTGRES."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from iqa_checks import replies as replies_module
from iqa_checks.errors import StoreError
from iqa_checks.replies import Reply, ReplyStore, Stored

POSTGRES = os.environ.get("IQA_CHECKS_POSTGRES", "")
needs_postgres = pytest.mark.skipif(not POSTGRES, reason="IQA_CHECKS_POSTGRES is not set to a URL")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=needs_postgres)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "replies.sqlite")
        return
    yield POSTGRES
    engine = sa.create_engine(POSTGRES.replace("postgresql:", "postgresql+psycopg:", 1))
    replies_module._METADATA.drop_all(engine)
    engine.dispose()


def opened(location: str, **more: Any) -> ReplyStore:
    return ReplyStore(location, **{"identity": "same", "model": "observer", **more})


def request(k: int = 0, **more: Any) -> dict[str, Any]:
    frozen = {
        "model": "observer",
        "template": "standard/single_nr",
        "text_sha256": "aa",
        "images": [["a" * 64, "image/png"]],
        "max_tokens": 64,
        "repeat": k,
    }
    return {**frozen, **more}


def stored(k: int, text: str = "Score: 50", **more: Any) -> Stored:
    reply = Reply(text, "stop", "observer-1", 90, 3, 0.5, time.time())
    return Stored(f"key {k}", request(k, **more), "Rate this.", reply)


def lost(store: ReplyStore) -> None:
    """What a killed process leaves: an unfinished run that nobody is in."""
    store.close()


def test_keeps_a_reply_as_it_was(location: str) -> None:
    first = opened(location)
    item = stored(1, "Score: 50 \N{SNOWMAN} 品質\n\t")
    first.add([item])
    lost(first)
    found = opened(location).lookup(["key 1", "key 2"], finished_runs=False)
    assert found == {"key 1": dataclasses.replace(item.reply, origin="resumed")}


def test_finished_replies_are_used_when_asked_for(location: str) -> None:
    first = opened(location)
    first.add([stored(1)])
    first.finish(["key 1"])
    first.close()
    second = opened(location)
    assert second.resumable() == 0
    assert second.lookup(["key 1"], finished_runs=False) == {}
    assert second.lookup(["key 1"], finished_runs=True)["key 1"].origin == "reused"


def test_the_newest_of_several_replies(location: str) -> None:
    for text in ("Score: 10", "Score: 20"):
        run = opened(location, fresh=True)
        run.add([stored(1, text)])
        run.finish(["key 1"])
        run.close()
    assert opened(location).lookup(["key 1"], finished_runs=True)["key 1"].text == "Score: 20"


def test_takes_over_a_chain_of_interrupted_runs(location: str) -> None:
    for k in range(3):
        run = opened(location)
        run.add([stored(k)])
        lost(run)
    last = opened(location)
    assert last.resumable() == 3
    last.finish(["key 0", "key 1"])
    last.close()
    after = opened(location)
    keys = [f"key {k}" for k in range(3)]
    assert set(after.lookup(keys, finished_runs=False)) == {"key 2"}


def test_fresh_takes_nothing_over(location: str) -> None:
    run = opened(location)
    run.add([stored(1)])
    lost(run)
    assert opened(location, fresh=True).lookup(["key 1"], finished_runs=False) == {}


def test_another_identity_takes_nothing_over(location: str) -> None:
    run = opened(location)
    run.add([stored(1)])
    lost(run)
    assert opened(location, identity="other").lookup(["key 1"], finished_runs=False) == {}


def change_run(store: ReplyStore, **values: Any) -> None:
    runs = replies_module._RUNS
    with store._engine.begin() as connection:
        connection.execute(
            runs.update().where(runs.c.id == store.run_id).values(id=store.run_id, **values)
        )


@pytest.mark.parametrize(
    ("changed", "alive"),
    [
        ({}, True),
        ({"pid": 1}, True),  # of this machine, and there
        ({"pid": 2**22 + 1}, False),  # no such process
        ({"pid": 1, "heartbeat_at": time.time() - 3600}, False),  # its id is another process's
        ({"host": "elsewhere/1"}, True),
        ({"host": "elsewhere/1", "heartbeat_at": time.time() - 3600}, False),
    ],
)
def test_a_run_that_goes_on_keeps_its_replies(
    tmp_path: Path, changed: dict[str, Any], alive: bool
) -> None:
    first = opened(str(tmp_path / "replies.sqlite"))
    first.add([stored(1)])
    change_run(first, **changed)
    second = opened(str(tmp_path / "replies.sqlite"))
    for finished_runs in (False, True):
        assert (second.lookup(["key 1"], finished_runs=finished_runs) == {}) == alive


def test_what_was_interrupted_long_ago_is_not_resumed(tmp_path: Path) -> None:
    first = opened(str(tmp_path / "replies.sqlite"))
    first.add([stored(1)])
    change_run(first, heartbeat_at=time.time() - 8 * 86400)
    lost(first)
    second = opened(str(tmp_path / "replies.sqlite"))
    assert second.lookup(["key 1"], finished_runs=False) == {}
    assert second.lookup(["key 1"], finished_runs=True)["key 1"].origin == "reused"


def test_two_runs_store_the_same_prompt_at_once(location: str) -> None:
    first, second = opened(location), opened(location)
    first.add([stored(1), stored(2)])
    second.add([stored(1), stored(3)])
    third = opened(location)
    assert third.nearest(request(9)) == "the store is empty"  # both still go on
    assert third.lookup(["key 1"], finished_runs=True) == {}


def test_many_keys_in_one_lookup(location: str) -> None:
    first = opened(location)
    first.add([stored(k) for k in range(1500)])
    lost(first)
    found = opened(location).lookup([f"key {k}" for k in range(3000)], finished_runs=False)
    assert len(found) == 1500


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "other"}, "model (observer there, other here)"),
        ({"images": [["b" * 64, "image/png"]]}, "images (1 of 1)"),
        ({"images": [["a" * 64, "image/png"]] * 2}, "images (1 there, 2 here)"),
        (
            {"text_sha256": "bb", "max_tokens": 9},
            "the prompt's text; max_tokens (64 there, 9 here)",
        ),
    ],
)
def test_the_nearest_request(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    first = opened(str(tmp_path / "replies.sqlite"))
    first.add([stored(1), stored(2, max_tokens=1, model="far off", text_sha256="zz")])
    lost(first)
    nearest = opened(str(tmp_path / "replies.sqlite")).nearest(request(1, **changed))
    assert nearest.endswith(f"differs in {said}")
    assert "standard/single_nr" in nearest


# --- stores that cannot be used -----------------------------------------------------------------


def one_line(location: str) -> str:
    with pytest.raises(StoreError) as error:
        opened(location)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing of the sort\n" * 500)
    assert "file is not a database" in one_line(str(path))
    assert path.read_text().startswith("nothing of the sort")


def test_a_damaged_database(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    first = opened(str(path))
    first.add([stored(k, "x" * 3000) for k in range(50)])
    lost(first)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    assert "cannot be used" in one_line(str(path))


def test_a_database_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE runs (id TEXT, started TEXT)"))
    engine.dispose()
    assert "no such column" in one_line(str(path))


def test_a_folder(tmp_path: Path) -> None:
    assert "unable to open" in one_line(str(tmp_path))


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "the folder of the reply store" in one_line(str(tmp_path / "file" / "replies.sqlite"))


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    lost(opened(str(path)))
    assert "readonly" in one_line(f"sqlite:///file:{path}?mode=ro&uri=true")


@pytest.mark.parametrize(
    "location", ["mysql://me:hunter2@db/x", "://", "postgresql://me:hunter2@h:x/y"]
)
def test_a_url_that_is_none_never_says_its_password(location: str) -> None:
    said = one_line(location)
    assert "--iqa-store" in said
    assert "hunter2" not in said


@needs_postgres
def test_a_postgres_that_refuses() -> None:
    said = one_line("postgresql://nobody:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in said
    assert "cannot be used" in said
